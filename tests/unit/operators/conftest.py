"""What tests of the operator's loop share."""

from __future__ import annotations

import pytest

from operators.alignmentrun import controller, workqueue


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that does not wait for long."""
    monkeypatch.setattr(controller, "PROGRESS_SECONDS", 0.05)
    monkeypatch.setattr(workqueue, "LONGEST_PAUSE_SECONDS", 0.05)
