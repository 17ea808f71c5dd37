"""Fixtures of every suite: an environment without FLUVIAL_* settings, and one real stack for all."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from fluvial.local.stack import LocalStack
from fluvial.terminal.output import Output
from tests import sharing, warming
from tests.requirements import require
from tests.tokens import soft_tokens, token  # noqa: F401 (fixtures)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backends.settings import Settings

# Where downloads are kept is no setting of what is tested: without it every run would fetch Kafka again.
_KEPT = {"FLUVIAL_CACHE"}

os.environ.update(warming.child_settings())  # noqa: TID251

# How long an example takes says how busy the machine is. What else the profile has, of CI or not, stays.
hypothesis.settings.register_profile("untimed", parent=hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("untimed")

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    # A shell that starts this in the background has Ctrl-C ignored, and every process of ours would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the kernels once, before the processes that would all do so at the same time."""
    if session.config.getoption("numprocesses", None) and not hasattr(session.config, "workerinput"):
        warming.compile_kernels()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """``@pytest.mark.needs("promtool")``: skip or fail where this machine lacks it."""
    for mark in item.iter_markers("needs"):
        require(*mark.args)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: all processes shall end at about the same time."""
    items.sort(key=lambda item: sharing.rank(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Who gives the tests to the processes."""
    return sharing.scheduling(config, log)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own settings must not reach a test."""
    for name in [name for name in os.environ if name.startswith("FLUVIAL_") and name not in _KEPT]:  # noqa: TID251
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def local_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The session's stack itself, for tests that kill parts of it and start them again."""
    warming.archive_classes(tmp_path_factory.mktemp("archive"))
    stack = LocalStack(tmp_path_factory.mktemp("stack"), reporter=Output(), secured=False)
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
