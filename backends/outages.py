"""Waiting for an outage to end: retry for as long as it takes, and never in silence.

A worker that cannot reach Kafka or the store must not guess and must not give up: it waits, says every few seconds
what for, and goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from aggregation.errors import ConnectionProblem, FluvialError, IntegrityProblem, TimeoutProblem
from backends.clock import SYSTEM_CLOCK, Clock

BACKOFF_S_MAX: Final = 5.0
Result = TypeVar("Result")

log = logging.getLogger("fluvial")


Outage = type[FluvialError]
OUTAGES: Final[tuple[Outage, ...]] = (ConnectionProblem, TimeoutProblem)
UNREADABLE: Final[tuple[Outage, ...]] = (*OUTAGES, IntegrityProblem)
"""Also an object that is missing or damaged: whoever must not guess waits until somebody restores it."""


def retry_through_outage(
    what: str,
    action: Callable[[], Result],
    while_raising: tuple[Outage, ...] = OUTAGES,
    clock: Clock = SYSTEM_CLOCK,
) -> Result:
    """``action()``, again and again while it raises one of these; anything else passes."""
    began_s = clock.monotonic()
    try:
        return action()  # nearly always enough, at a tenth of the cost of tenacity's bookkeeping
    except while_raising as error:
        failed: FluvialError | None = error

    def first_failed() -> Result:
        nonlocal failed
        if failed is not None:
            error, failed = failed, None
            raise error
        return action()

    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        waited_s = clock.monotonic() - began_s
        log.warning("waiting to %s, %.0f s: %s", what, waited_s, getattr(error, "message", error))

    retrying = Retrying(
        retry=retry_if_exception_type(while_raising),
        wait=wait_random_exponential(multiplier=0.2, max=BACKOFF_S_MAX),
        sleep=clock.sleep,
        before_sleep=say,
        reraise=True,
    )
    return retrying(first_failed)


async def retry_through_outage_async(
    what: str,
    action: Callable[[], Result],
    while_raising: tuple[Outage, ...] = OUTAGES,
    clock: Clock = SYSTEM_CLOCK,
) -> Result:
    """As ``patiently``, on a thread, so that the event loop goes on."""
    return await asyncio.to_thread(retry_through_outage, what, action, while_raising, clock)
