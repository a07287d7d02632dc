"""Files that are rendered from the config models: written by a module's command, or only compared with `--check`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def render_file(what: str, file: Path, text: str, module: str) -> int:
    """The command of `module`, which renders `text` for `file`; its exit code. what: it says of itself under --help."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--check", action="store_true", help="only say whether the file is up to date")
    if not parser.parse_args().check:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return 0
    if file.is_file() and file.read_text(encoding="utf-8") == text:
        return 0
    print(f"{file.name} is stale. Run: python -m {module}", file=sys.stderr)
    return 1
