"""What people are told about their requests, in English and Chinese."""

from __future__ import annotations

_SENTENCES: dict[str, tuple[str, str]] = {
    "done": ("`/{command}` is done.", "`/{command}` 已完成。"),
    "failed": ("`/{command}` failed: {reason}", "`/{command}` 失败：{reason}"),
    "lost": (
        (
            "`/{command}` was interrupted: the process that ran it ended. It "
            "may have had effects, so it is not run again by itself."
        ),
        "`/{command}` 被中断：运行它的进程已结束。它可能已经产生影响，因此不会自动重新运行。",
    ),
    "timed-out": (
        "`/{command}` took longer than it may and was ended.",
        "`/{command}` 超过了允许的时间，已被终止。",
    ),
    "cancelled": ("`/{command}` was cancelled.", "`/{command}` 已取消。"),
    "cancel-requested": ("Cancellation of `/{command}` was requested.", "已请求取消 `/{command}`。"),
    "audit-unavailable": (
        "Nothing was done: it could not be written in the audit first. Tell whoever runs this assistant.",
        "未执行：无法先写入审计记录。请联系本助手的管理员。",
    ),
    "damaged-message": (
        "What you wrote cannot be read any more: it was damaged where it was kept. Please write it again.",
        "您发送的内容在存储时损坏，已无法读取。请重新发送。",
    ),
    "damaged-answer": (
        "An answer for this conversation was damaged before it could be sent. Please ask again.",
        "发往此会话的一条答复在发送前已损坏，请重新提问。",
    ),
    "too-late": (
        "This message is {age} old, too old to act on it now. Send it again if it still matters.",
        "这条消息已过去 {age}，现在执行已经太晚。如仍需要，请重新发送。",
    ),
    "too-fast": (
        "That is more than I take at once. Nothing was done; try again in {wait}.",
        "请求过于频繁，本次未执行。请在 {wait} 后重试。",
    ),
    "unknown-sender": (
        (
            "I do not know you yet, so I may not do anything for you. Ask the owner "
            "of this assistant to add you (your id here is `{id}`)."
        ),
        "我还不认识您，因此不能为您执行操作。请联系本助手的管理员添加您（您在这里的标识是 `{id}`）。",
    ),
    "empty": (
        "That message was empty. `/help` lists what you may run.",
        "这条消息是空的。`/help` 会列出您可以运行的命令。",
    ),
    "too-long-text": (
        (
            "That message is too long to be understood: {length} "
            "characters, at most {most}. Put long data in a file."
        ),
        "这条消息太长（{length} 个字符，最多 {most} 个），请把长数据放进文件。",
    ),
    "not-understood": (
        "I did not understand that. `/help` lists what you may run.",
        "我没有听懂。`/help` 会列出您可以运行的命令。",
    ),
    "asking-ended": ("All right, `/{command}` is dropped.", "好的，已放弃 `/{command}`。"),
    "standing-none": (
        "No standing approval allows this by itself; a person has to ask for it.",
        "没有长期批准允许自动运行此操作，需要由人来发起。",
    ),
    "standing-parameters": (
        "No standing approval covers these values; a person has to ask for it.",
        "长期批准不包含这些参数值，需要由人来发起。",
    ),
    "standing-version": (
        "What this runs has changed since it was approved; the owner has to approve it anew.",
        "批准之后所运行的内容已经变更，需要所有者重新批准。",
    ),
    "standing-rate": (
        "It has run by itself as often as its standing approval allows; a person has to ask for it now.",
        "自动运行次数已达到长期批准的上限，现在需要由人来发起。",
    ),
    "event-twice": (
        "The same event starts `/{command}` with these values already.",
        "同一事件已经以这些参数值启动 `/{command}`。",
    ),
    "offer-taken": ("{name} has taken this already: `/{command}`.", "{name} 已经接手：`/{command}`。"),
    "offer-over": (
        "This offer of `/{command}` is over: the matter is closed, or it took too long.",
        "`/{command}` 的提议已结束：问题已关闭，或已超时。",
    ),
    "not-yours": ("Only the person who asked may answer this.", "只有提出请求的人才能回答。"),
    "nothing-open": ("There is nothing here that waits for an answer.", "这里没有等待回答的问题。"),
    "no-such-run": ("There is no run `{id}` of yours.", "您没有编号为 `{id}` 的运行。"),
    "nothing-to-cancel": ("Nothing of yours is running here.", "这里没有您正在运行的任务。"),
    "nothing-refused": ("Nothing was refused or failed here lately.", "这里最近没有被拒绝或失败的请求。"),
    "why": ("`/{command}` ({id}) {state}: {reason}", "`/{command}`（{id}）{state}：{reason}"),
    "no-runs": ("You have run nothing yet.", "您还没有运行过任何东西。"),
    "runs-all": (
        "Only the owner and auditors see what others run, where the platform vouches for who is writing.",
        "只有所有者和审计员可以查看他人的运行，且须在能够证明身份的渠道中进行。",
    ),
    "how-to-drop": ("Write `cancel` to drop it.", "回复“取消”可放弃。"),
    "alert": (
        (
            "`/{command}` failed {count} times in a row. Last: {reason}\n`/ack "
            "{command}` takes it over, `/silence {command} 2h` is quiet."
        ),
        (
            "`/{command}` 连续失败 {count} 次。最近一次：{reason}\n`/ack "
            "{command}` 表示接手，`/silence {command} 2h` 表示静默。"
        ),
    ),
    "alert-once": (
        "`/{command}` failed: {reason}\n`/ack {command}` takes it over, `/silence {command} 2h` is quiet.",
        "`/{command}` 失败：{reason}\n`/ack {command}` 表示接手，`/silence {command} 2h` 表示静默。",
    ),
    "recovered-once": ("`/{command}` works again.", "`/{command}` 已恢复正常。"),
    "recovered": (
        "`/{command}` works again after {count} failures.",
        "`/{command}` 在 {count} 次失败后恢复正常。",
    ),
    "lost-duty": (
        (
            "A run of `/{command}` ({id}) was interrupted and may have had effects. "
            "It is not run again by itself: look, then run it again or close it."
        ),
        "`/{command}`（{id}）的一次运行被中断，可能已产生影响。不会自动重新运行：请先检查，再选择重新运行或关闭。",
    ),
    "lost-duty-look": (
        "A run of `/{command}` ({id}) was interrupted. It only looks things up: run it again or close it.",
        "`/{command}`（{id}）的一次运行被中断。它只读取信息：请选择重新运行或关闭。",
    ),
    "dlq-denied": (
        "Dead letters are for the owner and operators, where the platform vouches for who is writing.",
        "死信由所有者和操作员处理，且须在能够证明身份的渠道中进行。",
    ),
    "dlq-not-theirs": (
        (
            "What somebody wrote is handled again in their name: only they can ask for that, "
            "or the person at the machine (`parley dlq replay`)."
        ),
        "重新处理消息等于以原发送者的名义执行：只有其本人，或在服务器上使用 `parley dlq replay`，才能这样做。",
    ),
    "dlq-doubtful": (
        "`{what}` may have had effects before it was interrupted. Look first; run it again only if that is right.",
        "`{what}` 在中断之前可能已产生影响。请先检查，确认无误后再重新运行。",
    ),
    "dlq-doubtful-delivery": (
        "It may have arrived on {account}. Look first; send it again only if it is not there.",
        "它可能已经送达 {account}。请先查看，确认没有送达后再重新发送。",
    ),
    "dlq-replayed-before": (
        "{name} has done this again already; it is not done twice.",
        "{name} 已经重新执行过，不会再次执行。",
    ),
    "dlq-discarded-before": ("{name} has closed this already.", "{name} 已经将其关闭。"),
    "dlq-erased": (
        "What this was about has been erased (retention): it cannot be done again.",
        "相关内容已按保留期限删除，无法重新执行。",
    ),
    "dlq-not-ended": (
        "`/{command}` is waiting or running again already.",
        "`/{command}` 已在等待或重新运行。",
    ),
    "dlq-carried-out": (
        "What this message asked for was taken up already; only telling of it failed.",
        "这条消息的请求已经处理，只是通知失败。",
    ),
    "dlq-run-again": ("`/{command}` is run again ({id}).", "`/{command}` 正在重新运行（{id}）。"),
    "dlq-sent-again": ("It is sent again ({id}).", "正在重新发送（{id}）。"),
    "dlq-handled-again": ("The message is handled again ({id}).", "正在重新处理这条消息（{id}）。"),
    "dlq-discarded": (
        "Closed ({id}). The record stays until retention takes it.",
        "已关闭（{id}）。记录会保留到保留期限结束。",
    ),
    "dlq-none": ("There are no dead letters.", "没有死信。"),
    "dlq-unknown": ("There is no dead letter `{id}`.", "没有编号为 `{id}` 的死信。"),
    "dlq-usage": (
        (
            "Write `/dlq list`, `/dlq list run` (or message, delivery, expired, all), `/dlq show ID`, "
            "`/dlq replay ID` or `/dlq discard ID`."
        ),
        (
            "请写 `/dlq list`、`/dlq list run`（或 message、delivery、expired、all）、`/dlq show 编号`、"
            "`/dlq replay 编号` 或 `/dlq discard 编号`。"
        ),
    ),
    "answer-dead": (
        "An answer to you could not be delivered on {account}. The people on duty know (`{id}`).",
        "给您的一条答复无法在 {account} 上送达，值班人员已收到通知（`{id}`）。",
    ),
    "answer-ambiguous": (
        (
            "An answer to you on {account} may not have arrived, and is not sent again by itself. "
            "The people on duty know (`{id}`)."
        ),
        "{account} 上给您的一条答复可能没有送达，且不会自动重发，值班人员已收到通知（`{id}`）。",
    ),
    "run-again": ("Run again", "重新运行"),
    "send-again": ("Send again", "重新发送"),
    "close": ("Close", "关闭"),
    "run-expired": (
        "`/{command}` waited too long and was not run: its time was over before it could start.",
        "`/{command}` 等待过久，没有运行：在它开始之前，时限已过。",
    ),
    "acknowledged": ("`/{command}` is yours, {name}.", "{name} 已接手 `/{command}`。"),
    "silenced": ("`/{command}` is quiet until {until} (UTC).", "`/{command}` 静默至 {until}（UTC）。"),
    "no-alert": ("There is no alert for `/{command}`.", "`/{command}` 没有告警。"),
    "not-in-catalogue": (
        "`/{command}` is no longer offered here; it was not run.",
        "`/{command}` 已不再提供，没有运行。",
    ),
    "no-deployment": (
        "`/{command}` has no deployment in Prefect: run `prefect deploy --all`, or restart the worker.",
        "`/{command}` 在 Prefect 中没有部署：请运行 `prefect deploy --all` 或重启 worker。",
    ),
    "bridge-stopped": (
        (
            "The bridge {name} carries nothing for {minutes} minutes: too much was said in one of its rooms "
            "within a minute. If two bridges feed each other, mend parley.toml; else raise its per_minute."
        ),
        (
            "桥接 {name} 将暂停 {minutes} 分钟：其中一个房间一分钟内消息过多。"
            "若两个桥接互相转发，请修改 parley.toml；否则请调高 per_minute。"
        ),
    ),
    "ambiguous": (
        "An answer on {account} may not have arrived, and is not sent again by itself (delivery {id}): {reason}",
        "发往 {account} 的一条答复可能没有送达，且不会自动重发（投递 {id}）：{reason}",
    ),
    "dead": (
        "An answer on {account} could not be delivered (delivery {id}): {reason}",
        "发往 {account} 的一条答复无法送达（投递 {id}）：{reason}",
    ),
    "waits-for-prefect": (
        (
            "waiting: Prefect's server does not answer just now. "
            "`/{command}` is kept, and runs as soon as it is back."
        ),
        "等待中：Prefect 服务器暂时没有响应。`/{command}` 已保存，恢复后会立即运行。",
    ),
    "waits-for-worker": (
        "waiting: no worker is connected just now. `/{command}` is kept, and runs as soon as one is back.",
        "等待中：暂时没有可用的 worker。`/{command}` 已保存，恢复后会立即运行。",
    ),
    "prefect-away": (
        (
            "Prefect's server at {url} does not answer. What people ask for is accepted and waits "
            "({waiting} now); nothing is refused."
        ),
        "Prefect 服务器（{url}）没有响应。请求仍会接收并等待（目前 {waiting} 个），不会被拒绝。",
    ),
    "prefect-back": (
        "Prefect's server at {url} answers again. What waited ({waiting} now) is carried out in its order.",
        "Prefect 服务器（{url}）已恢复。等待中的请求（目前 {waiting} 个）正按顺序执行。",
    ),
    "directory-away": (
        "The directory has not answered for {minutes} minutes: {reason} Nobody is removed and nobody let in by it.",
        "目录已有 {minutes} 分钟没有应答：{reason} 在此期间不会移除任何人，也不会加入任何人。",
    ),
    "directory-back": ("The directory answers again.", "目录已恢复应答。"),
    "directory-held": (
        (
            "In the directory {missing} of {of} people are suddenly missing, or lose roles or accounts that it gave "
            "them. I take it for a mistake: nobody was removed. If it is right, write `/people sync anyway`."
        ),
        (
            "目录中突然缺少 {missing}/{of} 人，或其角色、账号消失。这可能是错误，因此未移除任何人。"
            "若确认无误，请写 `/people sync anyway`。"
        ),
    ),
    "directory-resumed": (
        "What the directory says of people is carried out again.",
        "已恢复按目录更新人员。",
    ),
    "asked-expired": (
        "The question about `/{command}` was open too long and is closed.",
        "关于 `/{command}` 的问题等待过久，已关闭。",
    ),
}


def sentence(key: str, language: str | None = "en", **values: object) -> str:
    """One sentence in this language; English where there is no other."""
    english, chinese = _SENTENCES[key]
    return (chinese if language == "zh" else english).format(**values)
