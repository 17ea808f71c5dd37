"""A log, a broker and a topic of the test's own."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from backends.memory.clock import ManualClock
from backends.memory.log import MemoryLog, MemoryReader, MemoryWriter
from tests.contract.logs import PARTITIONS, Log, make_topic, mock_cluster, on_broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings


@pytest.fixture
def kafka(stack: Settings) -> Settings:
    """The real broker, for what the mock cluster does not do."""
    return stack


@pytest.fixture(params=["mock", pytest.param("kafka", marks=pytest.mark.integration)])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    if request.param == "kafka":
        yield request.getfixturevalue("stack")
        return
    with mock_cluster(tmp_path) as settings:
        yield settings


@pytest.fixture
def name() -> str:
    """A topic of the test's own."""
    return f"contract-{uuid.uuid4().hex}"


@pytest.fixture
def topic(broker: Settings, name: str) -> str:
    """The topic, there."""
    make_topic(broker, name)
    return name


@pytest.fixture(params=["memory", "mock", pytest.param("kafka", marks=pytest.mark.integration)])
def log(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> Iterator[Log]:
    """A log that has the topic."""
    if request.param == "memory":
        memory = MemoryLog({name: PARTITIONS}, ManualClock(1_000.0))
        yield Log(lambda: MemoryWriter(memory), lambda: MemoryReader(memory))
    elif request.param == "kafka":
        yield on_broker(request.getfixturevalue("stack"), name)
    else:
        with mock_cluster(tmp_path) as settings:
            yield on_broker(settings, name)
