"""A task of its own for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.devices.stage import Stage, create

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backends.settings import Settings


@pytest.fixture(scope="session")
def counter() -> Iterator[int]:
    """Numbers of the session's tasks: all files of this folder share a stack."""
    return iter(range(1000))


@pytest.fixture
def name(counter: Iterator[int]) -> str:
    """A task name that no other test has."""
    return f"devices-{next(counter)}"


@pytest.fixture
def stage(stack: Settings, name: str) -> Stage:
    return Stage(stack, create(stack, name))
