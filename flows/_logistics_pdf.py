"""An order's way as a PDF of one page or more: what it is, a timeline of its legs, and each leg in a table.

The same order gives the same bytes. Text of customers and carriers is shown, never read as markup.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal
from xml.sax.saxutils import escape

from flows._orders import Leg, Order

if TYPE_CHECKING:
    from reportlab.graphics.shapes import Drawing
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.platypus import Table

WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {
        "title": "Logistics report, order {id}",
        "state": "State",
        "customer": "Customer",
        "ordered": "Ordered (UTC)",
        "total": "Total",
        "under_way": "Under way",
        "time": "Time (UTC)",
        "place": "Place",
        "event": "Event",
        "after": "After",
        "none": "The parcel has not left yet.",
    },
    "zh": {
        "title": "物流报告，订单 {id}",
        "state": "状态",
        "customer": "客户",
        "ordered": "下单时间（UTC）",
        "total": "金额",
        "under_way": "运输用时",
        "time": "时间（UTC）",
        "place": "地点",
        "event": "事件",
        "after": "间隔",
        "none": "包裹尚未发出。",
    },
}

_LATIN, _WIDE = "Helvetica", "STSong-Light"
_WIDTH, _HEIGHT, _MARGIN = 480.0, 150.0, 24.0
_MOST_MARKS = 24
_LABEL = 22


def logistics_pdf(order: Order, state: str, language: str) -> bytes:
    """The report. `state` is the order's state as people read it, `language` is "en" or "zh"."""
    from reportlab.lib.pagesizes import A4
    from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer

    _register_wide_font()
    words, out = WORDS[language], io.BytesIO()
    title = words["title"].format(id=order.id)
    story: list[Flowable] = [
        Paragraph(escape(title), _style(title, 16)),
        Spacer(1, 10),
        _facts(order, state, words),
    ]
    story.append(Spacer(1, 14))
    if order.legs:
        story += [timeline(order.legs), Spacer(1, 10), _legs(order.legs, words)]
    else:
        story.append(Paragraph(escape(words["none"]), _style(words["none"], 10)))
    # invariant: no moment of making and no random id in the file.
    SimpleDocTemplate(out, pagesize=A4, title=title, author="prefect-parley", invariant=1).build(story)
    return out.getvalue()


def timeline(legs: Sequence[Leg]) -> Drawing:
    """The legs on a line whose lengths are times; above and below in turn, so that labels do not cover each other."""
    from reportlab.graphics.shapes import Circle, Drawing, Line, String
    from reportlab.lib import colors

    shown = _thinned(legs)
    drawing, middle = Drawing(_WIDTH, _HEIGHT), _HEIGHT / 2
    drawing.add(Line(_MARGIN, middle, _WIDTH - _MARGIN, middle, strokeColor=colors.HexColor("#8899aa")))
    for number, (leg, x) in enumerate(zip(shown, _places(shown), strict=True)):
        last = number == len(shown) - 1
        colour = colors.HexColor("#c2410c" if last else "#1d4ed8")
        drawing.add(Circle(x, middle, 5 if last else 3.5, fillColor=colour, strokeColor=None))
        level = (number // 2) % 3
        y = middle + 14 + 20 * level if number % 2 == 0 else middle - 22 - 20 * level
        drawing.add(Line(x, middle, x, y, strokeColor=colors.HexColor("#ccd5dd"), strokeWidth=0.5))
        for offset, text in ((8, _short(leg.place)), (0, f"{leg.at:%m-%d %H:%M} {_short(leg.event)}")):
            drawing.add(
                String(x, y + offset, text, fontName=_font(text), fontSize=6.5, textAnchor=_anchor(x))
            )
    return drawing


def _places(legs: Sequence[Leg]) -> list[float]:
    first, whole = legs[0].at, max((legs[-1].at - legs[0].at).total_seconds(), 1.0)
    room = _WIDTH - 2 * _MARGIN
    return [_MARGIN + room * min(1.0, max(0.0, (leg.at - first).total_seconds() / whole)) for leg in legs]


def _thinned(legs: Sequence[Leg]) -> Sequence[Leg]:
    """All of them, or so many as can be read: the first, the last, and some of those between."""
    if len(legs) <= _MOST_MARKS:
        return legs
    pace = (len(legs) - 1) / (_MOST_MARKS - 1)
    return [legs[round(number * pace)] for number in range(_MOST_MARKS)]


def _facts(order: Order, state: str, words: Mapping[str, str]) -> Table:
    rows = [
        (words["state"], state),
        (words["customer"], order.customer),
        (words["ordered"], f"{order.ordered_at:%Y-%m-%d %H:%M}"),
        (words["total"], order.total),
    ]
    if len(order.legs) > 1:
        rows.append((words["under_way"], _spoken(order.legs[-1].at - order.legs[0].at)))
    return _table(rows, (110, 370))


def _legs(legs: Sequence[Leg], words: Mapping[str, str]) -> Table:
    waits = [timedelta(0), *(later.at - earlier.at for earlier, later in pairwise(legs))]
    rows = [(words["time"], words["place"], words["event"], words["after"])]
    rows += [
        (f"{leg.at:%Y-%m-%d %H:%M}", leg.place, leg.event, _spoken(wait) if wait else "")
        for leg, wait in zip(legs, waits, strict=True)
    ]
    return _table(rows, (90, 150, 180, 60), heading=True)


def _table(rows: Sequence[Sequence[str]], widths: Sequence[float], *, heading: bool = False) -> Table:
    from reportlab.lib import colors
    from reportlab.platypus import Paragraph, Table, TableStyle

    cells = [[Paragraph(escape(_printable(cell)), _style(cell, 9)) for cell in row] for row in rows]
    looks = TableStyle([("LINEBELOW", (0, 0), (-1, -1), 0.25, colors.HexColor("#ccd5dd"))])
    if heading:
        looks.add("BACKGROUND", (0, 0), (-1, 0), colors.HexColor("#eef2f6"))
    return Table(cells, colWidths=list(widths), style=looks, repeatRows=int(heading))


def _style(text: str, size: float) -> ParagraphStyle:
    from reportlab.lib.styles import ParagraphStyle

    wide = _font(text) == _WIDE
    return ParagraphStyle(
        f"{size}-{wide}",
        fontName=_font(text),
        fontSize=size,
        leading=size * 1.3,
        wordWrap="CJK" if wide else None,
    )


def _font(text: str) -> str:
    return _LATIN if text.encode("latin-1", "ignore").decode("latin-1") == text else _WIDE


def _register_wide_font() -> None:
    # One of the fonts that every PDF reader brings for Chinese: nothing has to be installed or embedded.
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont

    if _WIDE not in pdfmetrics.getRegisteredFontNames():
        pdfmetrics.registerFont(UnicodeCIDFont(_WIDE))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _short(text: str) -> str:
    text = _printable(text)
    return text if len(text) <= _LABEL else text[: _LABEL - 1] + "…"


def _anchor(x: float) -> Literal["start", "middle", "end"]:
    if x < _WIDTH / 5:
        return "start"
    return "end" if x > _WIDTH * 4 / 5 else "middle"


def _spoken(length: timedelta) -> str:
    minutes = int(length.total_seconds()) // 60
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = [f"{days} d" if days else "", f"{hours} h" if hours else "", f"{minutes} min" if minutes else ""]
    return " ".join(part for part in parts if part) or "0 min"
