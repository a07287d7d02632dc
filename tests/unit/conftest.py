"""What unit tests share: Helm, and examples of Hypothesis that are never timed, since a busy machine is no fault of the code.

Helm is taken from HELM_BIN or PATH, else the packed one beside the repository is unpacked; its tests are skipped, with
the reason, where there is none. CI has one.
"""

from __future__ import annotations

import functools
import lzma
import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

from .chart import PACKED, Manifest, Render, documents, template

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """HELM_BIN, else the one on PATH, else the packed one beside the repository, else a skip."""
    found = os.environ.get("HELM_BIN") or shutil.which("helm")
    if found:
        return found
    if not PACKED.is_file():
        pytest.skip("no Helm: put helm on PATH or set HELM_BIN")
    binary = tmp_path_factory.mktemp("helm") / "helm"
    with lzma.open(PACKED) as packed, binary.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    binary.chmod(0o755)
    return str(binary)


@pytest.fixture(scope="session")
def render(helm: str) -> Render:
    @functools.cache
    def rendered(*sets: str) -> list[Manifest]:
        done = template(helm, sets)
        assert done.returncode == 0, done.stderr
        return documents(done.stdout)

    return rendered
