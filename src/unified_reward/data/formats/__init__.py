"""The published layouts this package reads, one module each, and the table of them.

Order matters for telling a file's layout: a layout with telling keys stands before one that is known by less.
"""

from __future__ import annotations

import difflib

from unified_reward.data.examples import Row
from unified_reward.data.format import Format
from unified_reward.data.formats import (
    evalmuse,
    genai_video,
    hpd,
    lift_hra,
    llama_factory,
    llava_critic,
    oip,
    records,
    sharegptvideo,
    unifiedreward,
    videodpo,
    videofeedback,
    vl_rewardbench,
    votes,
)  # fmt: skip
from unified_reward.errors import UserError

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (
        records, votes, hpd, evalmuse, videodpo, genai_video, vl_rewardbench, oip, sharegptvideo, lift_hra, videofeedback,
        llava_critic, unifiedreward, llama_factory,
    )
}  # fmt: skip
AUTO = "auto"


def format_named(name: str, field: str = "import.source") -> Format:
    """The format of this name. Raises UserError with the nearest name."""
    if name in FORMATS:
        return FORMATS[name]
    known = sorted([*FORMATS, *(("files", "shapes") if field == "import.source" else ())])
    near = difflib.get_close_matches(name.lower().replace("_", "-"), known, n=1, cutoff=0.5)
    guess = f"Did you mean {near[0]}? " if near else ""
    raise UserError(field=field, value=name, why="there is no such format", fix=f"{guess}Known: {', '.join(known)}.")


def format_of(row: Row) -> Format | None:
    """The first format whose layout a row has."""
    return next((each for each in FORMATS.values() if each.matches(row)), None)
