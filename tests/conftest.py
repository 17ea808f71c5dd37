"""Fixtures of every suite: an environment without FLUVIAL_* settings, and one real stack for all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fluvial.local.stack import LocalStack
from fluvial.terminal.output import Output
from tests import sharing, warming
from tests.requirements import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backends.settings import Settings

# Where downloads are kept is no setting of what is tested: without it every run would fetch Kafka again.
_KEPT = {"FLUVIAL_CACHE"}

os.environ.update(warming.child_settings())  # noqa: TID251


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the kernels once, before the processes that would all do so at the same time."""
    if session.config.getoption("numprocesses", None) and not hasattr(session.config, "workerinput"):
        warming.compile_kernels()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """``@pytest.mark.needs("promtool")``: skip or fail where this machine lacks it."""
    for mark in item.iter_markers("needs"):
        require(*mark.args)


@pytest.hookimpl(tryfirst=True)  # xdist looks at the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Share the tests out so that all processes end at about the same time: the longest first, in small groups."""
    items.sort(key=sharing.rank)
    for item in items:
        group = sharing.group(item)
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own settings must not reach a test."""
    for name in [name for name in os.environ if name.startswith("FLUVIAL_") and name not in _KEPT]:  # noqa: TID251
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def local_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The session's stack itself, for tests that kill parts of it and start them again."""
    warming.archive_classes(tmp_path_factory.mktemp("archive"))
    stack = LocalStack(tmp_path_factory.mktemp("stack"), reporter=Output())
    stack.up()
    yield stack
    stack.down()


@pytest.fixture(scope="session")
def stack(local_stack: LocalStack) -> Settings:
    """Settings of a real Kafka and object store, shared by the session: use topics and keys of your own."""
    return local_stack.up()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder of the test's own."""
    return tmp_path / "home"
