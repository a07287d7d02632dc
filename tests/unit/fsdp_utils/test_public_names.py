from __future__ import annotations

import subprocess
import sys

import pytest

import fsdp_utils


def test_every_public_name_is_there() -> None:
    for name in fsdp_utils.__all__:
        assert getattr(fsdp_utils, name).__class__ is not None
    assert set(fsdp_utils._MODULE_OF) == set(fsdp_utils.__all__)
    with pytest.raises(AttributeError, match="nothing_such"):
        fsdp_utils.nothing_such  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, fsdp_utils, fsdp_utils.storage; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
