"""How the tests are shared out to processes (pytest-xdist): the longest first, and together what shares a fixture.

Only tests that a fixture of their module serves have to run in one process, and those that break one stack. All others
of the real stack go one by one, so that no process is left with the last long file.
"""

from __future__ import annotations

from typing import Final

import pytest

LONGEST_FIRST: Final = (
    "test_chaos.py",
    "test_the_blocks_run_as_they_are_printed",
    "test_outages.py",
    "test_console.py",
    "test_demo.py",
    "test_rolling_upgrade.py",
    "test_prometheus.py",
    "test_recovery.py",
    "test_faults.py",
    "test_dashboard_queries.py",
    "test_asyncapi_live.py",
    "test_console_browser.py",
    "simulation/test_simulation.py",
    "integration/",
    "contract/",
)
"""Parts of tests' names: the earlier one of these stands in a name, the earlier the test is given out."""

_BREAKABLE: Final = "breakable_stack"
_SHARED: Final = {"module", "class"}


def rank(item: pytest.Item) -> int:
    """The place of a test in the order in which tests are given out; equal ones keep their order."""
    return next(
        (place for place, part in enumerate(LONGEST_FIRST) if part in item.nodeid), len(LONGEST_FIRST)
    )


def group(item: pytest.Item) -> str | None:
    """The name of what has to run in one process with this test; None when it may run anywhere."""
    if not isinstance(item, pytest.Function):
        return None
    if _BREAKABLE in item.fixturenames:
        return _BREAKABLE
    if "integration/" not in item.nodeid or _shares(item):
        return item.path.name
    return None


def _shares(item: pytest.Function) -> bool:
    """Whether it uses a fixture of its module."""
    return any(
        definition.scope in _SHARED
        for definitions in item._fixtureinfo.name2fixturedefs.values()
        for definition in definitions
    )
