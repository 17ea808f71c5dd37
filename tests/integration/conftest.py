"""Everything in this folder runs against the real stack, and is marked so; the longest come first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fluvial.local.stack import LocalStack
from fluvial.terminal.output import Output
from tests import warming

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _FOLDER in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def breakable_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack for tests that kill parts of it: they start again what they killed. All of them run in one process.

    The session's other stack has many topics, and would take long to come back after a kill.
    """
    warming.archive_classes(tmp_path_factory.mktemp("archive"))
    stack = LocalStack(tmp_path_factory.mktemp("breakable"), reporter=Output(), secured=False)
    stack.up()
    yield stack
    stack.down()
