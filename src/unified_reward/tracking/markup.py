"""The pieces of HTML the report is made of. Every text that goes in is escaped here, whoever wrote it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = NDArray[np.uint8]
SMALL_SIDE = 128  # pictures up to this size are enlarged without smoothing
THUMBNAIL_SIDE = 256  # larger ones are scaled down to it, so that the page stays light


class Html(str):
    """Markup, as opposed to text."""

    __slots__ = ()


def text(value: object) -> Html:
    """Any value as text: escaped, and safe inside a quoted attribute too."""
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def join(parts: Iterable[object], separator: str = "") -> Html:
    return Html(separator.join(text(part) for part in parts))


def tag(name: str, *content: object, **attributes: object) -> Html:
    """<name attributes>content</name>. `class_` stands for class; None leaves an attribute out."""
    pairs = "".join(f' {key.rstrip("_")}="{text(value)}"' for key, value in attributes.items() if value is not None)
    return Html(f"<{name}{pairs}>{join(content)}</{name}>")


@dataclass(frozen=True)
class Column:
    """title: head of the column. kind: "" text, "r" right-aligned numbers, "bar" a bar that fills a share."""

    title: str
    kind: str = ""


def table(columns: Sequence[Column], rows: Iterable[Sequence[object]], *, caption: str = "", class_: str = "") -> Html:
    head = tag("tr", *(tag("th", column.title, scope="col", class_=column.kind or None) for column in columns))
    body = [
        tag("tr", *(tag("td", cell, class_=column.kind or None) for column, cell in zip(columns, row, strict=True)))
        for row in rows
    ]
    title = tag("caption", caption) if caption else Html("")
    return tag(
        "div", tag("table", title, tag("thead", head), tag("tbody", *body), class_=class_ or None), class_="scroll"
    )


def drawing(figure: Figure, caption: str, *, name: str) -> Html:
    """A matplotlib figure as inline SVG with its caption. name: unique on the page."""
    from unified_reward.tracking import style

    picture = Html(style.svg(figure, caption, name=name))
    return tag("figure", picture, tag("figcaption", caption))


def share_bar(value: float | None, *, mark: float | None = None, reused: bool = False) -> Html:
    """A bar that fills `value` (0..1) of its cell, with a thin line at `mark`."""
    if value is None:
        return Html("")
    filled = tag("i", style=f"width:{_percent(value)}", class_="reused" if reused else None)
    line = tag("u", style=f"left:{_percent(mark)}") if mark is not None else ""
    return tag("span", filled, line)


def change_bar(before: float, after: float) -> Html:
    """A grey dot (before) and a blue dot (after) on one scale of 0..1, joined by a line."""
    low, high = sorted((before, after))
    line = tag("i", class_="gain" if after >= before else "gain loss",
               style=f"left:{_percent(low)};width:{_percent(high - low)}")  # fmt: skip
    dots = [tag("em", style=f"left:{_percent(before)}"), tag("em", class_="after", style=f"left:{_percent(after)}")]
    return tag("span", line, *dots)


def image(picture: Picture, description: str, *, class_: str = "") -> Html:
    """A uint8 picture [H, W, 3] as an <img> that carries its own data."""
    height, width = picture.shape[:2]
    classes = " ".join(part for part in (class_, "small" if max(height, width) <= SMALL_SIDE else "") if part)
    return Html(
        f'<img src="{_data_uri(picture)}" width="{width}" height="{height}" '
        f'alt="{text(description)}"{f" class={chr(34)}{classes}{chr(34)}" if classes else ""}>'
    )


def strip(frames: Sequence[Picture], description: str, *, most: int = 4) -> Html:
    """The frames of a clip side by side, at most `most`, evenly chosen; a picture is a clip of one frame."""
    places: list[int] = np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int).tolist()
    return tag("div", *(image(frames[place], description) for place in places), class_="strip")


def _data_uri(picture: Picture) -> str:
    from PIL import Image

    found = Image.fromarray(picture)
    small = max(found.size) <= SMALL_SIDE
    found.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    target = io.BytesIO()
    found.save(target, "PNG" if small else "WEBP", **({"optimize": True} if small else {"quality": 82}))
    kind = "png" if small else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(target.getvalue()).decode()}"


def _percent(share: float) -> str:
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"
