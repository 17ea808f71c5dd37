"""How the tests are shared out to processes (pytest-xdist): the longest first, and together what shares a fixture.

The tests of a file run in one process, with its fixtures. Files of the real stack whose tests share nothing are given
out test by test, so that no process is left with the last long file. (xdist's own marks for groups do not work: they
change a part of pytest's items that pytest 9.2 no longer has.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    import pytest

LONGEST_FIRST: Final = (
    "integration/test_chaos.py",
    "integration/test_readme.py::test_the_blocks_run_as_they_are_printed",
    "integration/test_console.py",
    "integration/test_outages.py",
    "integration/test_secured_federation.py",
    "integration/test_demo.py",
    "integration/test_rolling_upgrade.py",
    "integration/test_prometheus.py",
    "integration/test_recovery.py",
    "integration/test_faults.py",
    "integration/test_dashboard_queries.py",
    "integration/test_console_browser.py",
    "simulation/test_simulation.py",
    "integration/",
    "contract/",
)
"""Parts of tests' names: the earlier one of these stands in a name, the earlier the test is given out."""

ALONE: Final = frozenset(
    {
        "test_canary.py",
        "test_chaos.py",
        "test_demo.py",
        "test_deploy.py",
        "test_park.py",
        "test_processes.py",
        "test_prometheus.py",
        "test_readme.py",
        "test_recovery.py",
        "test_stack.py",
    }
)
"""Files in ``tests/integration`` whose tests share no fixture but the session's."""

BREAKING: Final = frozenset({"test_console.py", "test_outages.py"})
"""Those whose tests break one stack, ``breakable_stack``, and mend it."""


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types for its schedulers
    """xdist's own, with scopes of ours."""

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)


def scheduling(config: pytest.Config, log: Any) -> Scheduling:
    """Gives out scopes in the order of the tests, not by how many tests they hold."""
    config.option.loadscopereorder = False
    return Scheduling(config, log)


def rank(nodeid: str) -> int:
    """The place of a test in the order in which tests are given out; equal ones keep their order."""
    return next((place for place, part in enumerate(LONGEST_FIRST) if part in nodeid), len(LONGEST_FIRST))


def scope(nodeid: str) -> str:
    """The name of what has to run in one process with this test."""
    path = nodeid.partition("::")[0]
    folder, _, name = path.rpartition("/")
    if folder != "tests/integration":
        return path
    if name in BREAKING:
        return "breaking"
    return nodeid if name in ALONE else path
