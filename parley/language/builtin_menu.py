"""Built-in commands in the menus of platforms: what each takes, and what was chosen as it would have been typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from parley.language.grammar import Command
from parley.messages.model import CommandEntry, CommandParameter

_Texts = tuple[str, str]
"""English, Chinese."""


@dataclass(frozen=True, slots=True)
class _Value:
    """One value of a built-in command, by place. `many`: several words are several values."""

    name: str
    description: _Texts
    required: bool = False
    choices: tuple[str, ...] = ()
    many: bool = False


_REPOSITORY: Final = _Value(
    "repository",
    ("owner/name, or owner/* for all of an owner's.", "owner/name；owner/* 表示其所有仓库。"),
    required=True,
)
_RUN: Final = _Value("id", ("Which one; the last one without it.", "编号；不填则为最近一次。"))
_COMMAND: Final = _Value("command", ("Its name.", "命令名称。"), required=True)
_PERSON: Final = _Value("name", ("Who: their name here.", "对方在此处的名称。"), required=True)
_CODE: Final = _Value("code", ("The code that the request has.", "请求的代码。"), required=True)
_ALERTED: Final = _Value("command", ("The command that fails.", "出错的命令。"), required=True)

_MENU: Final[Mapping[str, tuple[_Texts, tuple[_Value, ...]]]] = {
    "help": (
        ("What you may run.", "您可以运行的命令。"),
        (_Value("command", ("Tell more about this one.", "详细说明此命令。")),),
    ),
    "status": (("How this installation is.", "本系统的状态。"), ()),
    "runs": (
        ("What you asked for lately.", "您最近的请求。"),
        (_Value("whose", ("What everybody asked for.", "所有人的请求。"), choices=("all",)),),
    ),
    "cancel": (("End a run of yours.", "结束您的一次运行。"), (_RUN,)),
    "why": (("Why something was refused or failed.", "某个请求为何被拒绝或失败。"), (_RUN,)),
    "whoami": (("Who you are here.", "您在这里的身份。"), ()),
    "who": (("Who may run a command.", "谁可以运行某个命令。"), (_COMMAND,)),
    "link": (
        ("Be known from another account of yours.", "关联您的另一个账号。"),
        (_Value("code", ("The code that you were given.", "您收到的代码。")),),
    ),
    "role": (
        ("Give somebody a role, or take it.", "授予或收回角色。"),
        (
            _Value(
                "what", ("Give it, or take it.", "授予或收回。"), required=True, choices=("add", "remove")
            ),
            _PERSON,
            _Value("role", ("Which one.", "角色。"), required=True),
        ),
    ),
    "people": (
        ("Ask the directory who is here.", "同步目录中的人员。"),
        (
            _Value("what", ("Ask it now.", "立即同步。"), required=True, choices=("sync",)),
            _Value("how", ("Although many are missing.", "即使许多人已离开。"), choices=("anyway",)),
        ),
    ),
    "invite": (
        ("Let somebody in.", "邀请他人加入。"),
        (
            _PERSON,
            _Value("role", ("What they become.", "加入后的角色。"), choices=("operator", "user", "auditor")),
        ),
    ),
    "follow": (
        ("Be told here what happens in a repository.", "在此接收某个仓库的动态。"),
        (
            _REPOSITORY,
            _Value(
                "events",
                (
                    "Such as: push release issues. Without it what most people want.",
                    "例如：push release issues；不填则为常用的几种。",
                ),
                many=True,
            ),
        ),
    ),
    "unfollow": (("Be told no more of a repository.", "不再接收某个仓库的动态。"), (_REPOSITORY,)),
    "following": (("Which repositories are followed here.", "此处关注的仓库。"), ()),
    "standing": (("What may run by itself, for how long.", "哪些操作可自动运行，有效多久。"), ()),
    "approve": (("Let somebody's request run.", "批准他人的请求。"), (_CODE,)),
    "refuse": (
        ("Refuse somebody's request.", "拒绝他人的请求。"),
        (_CODE, _Value("why", ("The reason, for who asked.", "告知请求者的原因。"), many=True)),
    ),
    "approvals": (("What waits for approval.", "等待批准的请求。"), ()),
    "delegate": (
        ("Let somebody approve in your place.", "委托他人代您批准。"),
        (
            _Value("name", ("Who.", "被委托人。")),
            _Value("time", ("Such as 8h or 2d.", "例如 8h 或 2d。")),
        ),
    ),
    "lock": (
        ("Keep something from being started.", "锁定某些操作，使其不会启动。"),
        (
            _Value(
                "command", ("The command, or all; repair* is many.", "命令名称或 all；repair* 可匹配多个。")
            ),
            _Value("why", ("The reason, for those who ask.", "告知请求者的原因。"), many=True),
        ),
    ),
    "unlock": (
        ("Let it be started again.", "解除锁定。"),
        (_Value("command", ("What was locked.", "已锁定的命令。")),),
    ),
    "sessions": (
        ("Where you are signed in, and the end of it.", "您的登录会话，以及结束会话。"),
        (
            _Value("what", ("End some of them.", "结束会话。"), choices=("end",)),
            _Value("which", ("Its number, or all.", "序号或 all。")),
            _Value("name", ("Whose, as an owner.", "（所有者）谁的会话。")),
        ),
    ),
    "dlq": (
        ("What was not carried out or delivered.", "未能执行或送达的内容。"),
        (
            _Value(
                "what",
                ("List them, show one, do it again, or close it.", "列出、查看、重新执行或关闭。"),
                choices=("list", "show", "replay", "discard"),
            ),
            _Value("id", ("Which one.", "编号。")),
        ),
    ),
    "ack": (("Take an alert over.", "接手告警。"), (_ALERTED,)),
    "silence": (
        ("Be quiet about an alert.", "静默告警。"),
        (_ALERTED, _Value("time", ("Such as 30m, 2h or 1d.", "例如 30m、2h 或 1d。"))),
    ),
}


def builtin_menu(language: str) -> tuple[CommandEntry, ...]:
    """The built-in commands as a platform's menu shows them, in this language."""
    at = language == "zh"
    return tuple(
        CommandEntry(
            name=name,
            summary=summary[at],
            parameters=tuple(
                CommandParameter(
                    name=value.name,
                    description=value.description[at],
                    required=value.required,
                    choices=value.choices,
                )
                for value in values
            ),
        )
        for name, (summary, values) in _MENU.items()
    )


def by_place(command: Command) -> Command:
    """A built-in command with the values that a menu gave by name in their places; other names stay as they are."""
    _, values = _MENU.get(command.name, (("", ""), ()))
    given = [value for value in values if value.name in command.named]
    if not given:
        return command
    words = [
        word
        for value in given
        for word in (command.named[value.name].split() if value.many else [command.named[value.name]])
    ]
    left = {name: text for name, text in command.named.items() if name not in {value.name for value in given}}
    return replace(command, positional=(*command.positional, *words), named=left)


__all__ = ["builtin_menu", "by_place"]
