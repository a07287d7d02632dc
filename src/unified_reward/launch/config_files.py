"""What .torchxconfig says of the scheduler `pytorchjob`. Of a file it cannot read, TorchX shows a traceback; here is one line."""

from __future__ import annotations

import configparser
import os

from torchx.runner import config as torchx_config

from unified_reward.errors import UserError

SECTION = "pytorchjob"
NOTHING = "None"  # TorchX's word for it


def texts() -> dict[str, str]:
    """Its options as they are written. As in TorchX, the first file that says one counts. Raises UserError."""
    try:
        files = torchx_config.find_configs()
    except FileNotFoundError:
        name = torchx_config.ENV_TORCHXCONFIG
        raise UserError(
            field=name, value=os.environ.get(name), why="there is no such file", fix="Name one, or unset it."
        ) from None
    found: dict[str, str] = {}
    for file in files:
        for option, text in _section(file).items():
            found.setdefault(option, "" if text == NOTHING else text)
    return found


def _section(file: str) -> dict[str, str]:
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names are case-sensitive
    try:
        with open(file, encoding="utf-8") as stream:
            parser.read_file(stream)
        return dict(parser.items(SECTION)) if parser.has_section(SECTION) else {}
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        why = f"it cannot be read ({' '.join(str(error).split())})"
        raise UserError(field=".torchxconfig", value=file, why=why, fix="Mend the file.") from None
