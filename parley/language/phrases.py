"""Sentences that people read, in English and Chinese, side by side so that neither is forgotten."""

from __future__ import annotations

from parley.language.characters import Language

PHRASES: dict[str, tuple[str, str]] = {
    # grammar
    "run-what": (
        "Write what to run: `/run NAME ...`. `/help` lists the names.",
        "请写明要运行什么：`/run 名称 …`。`/help` 会列出名称。",
    ),
    "unusable-character": (
        "The character {code} at position {position} cannot be used in a command. Remove it and send again.",
        "第 {position} 个字符 {code} 不能用在命令里，请去掉后重发。",
    ),
    "twice": (
        "`{name}` is given twice (position {position}). Give it once.",
        "`{name}` 给了两次（第 {position} 个字符），请只给一次。",
    ),
    "switch": (
        "`--{name}` at position {position} has no value. Write `{name}=value`, or put it in quotes if it is text.",
        "第 {position} 个字符处的 `--{name}` 没有值。请写 `{name}=值`；若是文字，请加引号。",
    ),
    "after-quote": (
        "A space is missing after the closing quote (position {position}).",
        "引号结束后缺一个空格（第 {position} 个字符）。",
    ),
    "open-quote": (
        "The quote that opens at position {position} is never closed. Add {mark} where the text ends.",
        "第 {position} 个字符处的引号没有结束，请在文字末尾加上 {mark}。",
    ),
    # confirmations
    "not-for-another": (
        "Nobody can confirm or drop this for somebody else: the person has to do it.",
        "不能替别人确认或放弃，必须由本人操作。",
    ),
    # names
    "unknown-command": ("There is no command `/{name}`.", "没有 `/{name}` 这个命令。"),
    "see-help": ("`/help` lists what you may run.", "`/help` 会列出您可以运行的命令。"),
    "did-you-mean": ("Did you mean {names}?", "您是不是想输入 {names}？"),
    "or": (" or ", "或"),
    "list": (", ", "、"),
    # binding
    "unknown-parameter": ("`/{command}` has no parameter `{name}`.", "`/{command}` 没有参数 `{name}`。"),
    "has-parameters": ("It takes: {names}.", "可用的参数：{names}。"),
    "has-none": ("It takes no parameters.", "它不需要参数。"),
    "too-many": (
        "`/{command}` takes {count} value(s); `{value}` is one too many. Put a value with spaces in quotes.",
        "`/{command}` 只需要 {count} 个值，`{value}` 多出来了。带空格的值请加引号。",
    ),
    "wrong": (
        "`{name}`: `{value}` does not fit. It must be {allowed}.",
        "`{name}`：`{value}` 不合要求，应为{allowed}。",
    ),
    "wrong-sealed": (
        "`{name}`: this value does not fit. It must be {allowed}.",
        "`{name}`：这个值不合要求，应为{allowed}。",
    ),
    "too-long": (
        "`{name}` is too long: {length} characters, at most {limit} are taken.",
        "`{name}` 太长：{length} 个字符，最多 {limit} 个。",
    ),
    "too-large": ("`{name}` is too large or nested too deeply.", "`{name}` 太大，或嵌套太深。"),
    "marker": (
        "`{name}` contains the key `{key}`, which is reserved and is not taken from outside.",
        "`{name}` 里有保留的键 `{key}`，不接受外来的值使用它。",
    ),
    "not-json": (
        "`{name}` contains something that cannot be kept: {what}.",
        "`{name}` 里有无法保存的内容：{what}。",
    ),
    "what-text": ("a NUL or broken character", "空字符或损坏的字符"),
    "what-number": ("a number beyond 64 bits, or one that is not finite", "超出 64 位的数，或不是有限的数"),
    "what-type": ("a value that JSON does not have", "JSON 没有的值"),
    "what-key": ("a key that is not text", "不是文字的键"),
    "field-missing": ("`{name}`: the field `{field}` is missing.", "`{name}`：缺少字段 `{field}`。"),
    "field-unknown": ("`{name}`: the field `{field}` is not known.", "`{name}`：没有字段 `{field}`。"),
    "unchecked": (
        "`{name}` cannot be checked: the automation's own rule for it is broken. Tell its author.",
        "无法检查 `{name}`：这个自动化自己的规则有错，请告知作者。",
    ),
    # what is allowed
    "type-integer": ("a whole number", "整数"),
    "type-number": ("a number", "数字"),
    "type-boolean": ("yes or no", "“是”或“否”"),
    "type-string": ("text", "文字"),
    "type-null": ("`null` (nothing)", "`null`（空）"),
    "type-object": ('a JSON object such as `{{"key": 1}}`', 'JSON 对象，例如 `{{"key": 1}}`'),
    "type-array": ("a list, separated by commas", "列表，用逗号分隔"),
    "type-array-of": ("a list, separated by commas, of {items}", "用逗号分隔的列表，每一项为{items}"),
    "type-any": ("any value", "任意值"),
    "format-date": ("a date such as 2026-11-05", "日期，例如 2026-11-05"),
    "format-date-time": ("a date and time such as 2026-11-05T08:30", "日期和时间，例如 2026-11-05T08:30"),
    "format-time": ("a time such as 08:30", "时间，例如 08:30"),
    "format-duration": ("a duration such as 1h30m", "时长，例如 1h30m"),
    "format-uuid": ("a UUID", "UUID"),
    "format-email": ("a mail address", "邮箱地址"),
    "format-uri": ("a web address", "网址"),
    "format-ipv4": ("an IPv4 address", "IPv4 地址"),
    "format-ipv6": ("an IPv6 address", "IPv6 地址"),
    "format-ipvanyaddress": ("an IP address", "IP 地址"),
    "choice": ("one of: {choices}", "以下之一：{choices}"),
    "more": ("{count} more", "另有 {count} 个"),
    "minimum": ("at least {value}", "不小于 {value}"),
    "maximum": ("at most {value}", "不大于 {value}"),
    "exclusiveMinimum": ("greater than {value}", "大于 {value}"),
    "exclusiveMaximum": ("less than {value}", "小于 {value}"),
    "multipleOf": ("a multiple of {value}", "{value} 的倍数"),
    "minLength": ("at least {value} characters", "至少 {value} 个字符"),
    "maxLength": ("at most {value} characters", "最多 {value} 个字符"),
    "pattern": ("of the form `{value}`", "符合 `{value}`"),
    "minItems": ("at least {value} items", "至少 {value} 项"),
    "maxItems": ("at most {value} items", "最多 {value} 项"),
    "uniqueItems": ("no item twice", "各项不重复"),
    # help
    "help-intro": ("What you may run:", "您可以运行："),
    "help-nothing": ("There is nothing that you may run here.", "这里没有您可以运行的命令。"),
    "help-builtins": ("Always there:", "内置命令："),
    "help-more": (
        "`/help NAME` tells more about one. Plain language works too.",
        "`/help 名称` 查看详情；也可以直接用平常的话来说。",
    ),
    "help-left": (
        "... and {count} more: `/help WORD` lists those about it.",
        "……还有 {count} 个：`/help 关键词` 列出相关的命令。",
    ),
    "help-usage": ("Usage: `{usage}`", "用法：`{usage}`"),
    "help-parameters": ("Parameters:", "参数："),
    "help-must-be": ("Takes {allowed}.", "应为{allowed}。"),
    "help-optional": ("Optional.", "可省略。"),
    "help-default": ("Without it: `{value}`.", "省略时为 `{value}`。"),
    "help-sealed": ("Kept secret.", "会加密保存。"),
    "help-example": ("Example: `{value}`.", "例如 `{value}`。"),
    "help-examples": ("You can say:", "可以这样说："),
    "effect-read": ("It only looks things up.", "只读取，不改动任何东西。"),
    "effect-write": (
        "It changes something: from plain language it asks before it runs.",
        "会改动数据：用平常的话来说时，会先请您确认。",
    ),
    "effect-dangerous": (
        "It is dangerous: it runs only after it was approved.",
        "有风险：批准之后才会运行。",
    ),
    "mark-read": ("", ""),
    "mark-write": (" (changes something)", "（会改动）"),
    "mark-dangerous": (" (dangerous)", "（有风险）"),
    # what came with a message
    "left-out": (
        "Not read from your message, and ignored:",
        "您消息中的以下文件没有读取，已忽略：",
    ),
    # asking
    "ask": ("`/{command}` needs `{name}`.", "`/{command}` 需要 `{name}`。"),
    "ask-answer": ("Answer with {allowed}.", "请回复{allowed}。"),
    "yes": ("Yes", "是"),
    "no": ("No", "否"),
    "confirm": ("Run `/{command}`? {summary}", "要运行 `/{command}` 吗？{summary}"),
    "confirm-value": ("- `{name}`: `{value}`", "- `{name}`：`{value}`"),
    "offer": (
        "I am not sure what you mean. Did you mean one of these?",
        "我不确定您的意思。您是想运行下面的命令吗？",
    ),
    "offer-none": (
        "I do not know how to do that. `/help` lists what you may run.",
        "我不知道怎么做这件事。`/help` 会列出您可以运行的命令。",
    ),
}
"""By key: English, Chinese."""


def phrase(key: str, language: Language, /, **slots: object) -> str:
    """The sentence of this key in this language, with its slots filled."""
    english, chinese = PHRASES[key]
    return (chinese if language == "zh" else english).format(**slots)
