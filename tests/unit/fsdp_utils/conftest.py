"""A process group of one, for tests that need ranks but not other processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fsdp_utils.context import DistContext


@pytest.fixture
def context() -> Iterator[DistContext]:
    made = DistContext.init("cpu")
    yield made
    made.close()
