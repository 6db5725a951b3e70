"""Fixtures of the policies' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _plans_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Plans go to a folder of this run: none is found that another source made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFRAMP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
