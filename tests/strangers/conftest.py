"""The stranger, for the tests of this folder."""

from __future__ import annotations

import pytest

from tests.strangers.program import Stranger, built


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    """The Go client and auditor."""
    return built(tmp_path_factory.mktemp("stranger"))
