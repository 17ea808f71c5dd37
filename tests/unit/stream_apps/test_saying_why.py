"""What a process says when it stops: the version, the error, and a traceback where it is a defect."""

from __future__ import annotations

import logging

import pytest

from aggregation.errors import ConnectionProblem
from stream_apps.running import say_stop

LOG = logging.getLogger("fluvial.test")
TEXT = "the merger stops at version %d.\n%s"


def test_a_problem_that_we_know_is_said_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    say_stop(LOG, TEXT, 7, ConnectionProblem("FLV-3100", "the broker is away"))
    (record,) = caplog.records
    assert record.getMessage().startswith("the merger stops at version 7.\n")
    assert "the broker is away" in record.getMessage()
    assert record.exc_info is None and record.__dict__["version"] == 7


def test_a_defect_is_said_with_its_traceback_after_its_handler_too(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        1 / 0  # noqa: B018 (it raises)
    say_stop(LOG, TEXT, 8, caught.value)
    (record,) = caplog.records
    assert record.exc_info and record.exc_info[1] is caught.value
    assert record.__dict__["version"] == 8
