"""Waiting for an outage to end: retry for as long as it takes, and never in silence.

A worker that cannot reach Kafka or the store must not guess and must not give up: it waits, says every few seconds
what for, and goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from aggregation.errors import ConnectionProblem, FluvialError, IntegrityProblem, TimeoutProblem

BACKOFF_S_MAX = 5.0
Result = TypeVar("Result")

log = logging.getLogger("fluvial")


Outage = type[FluvialError]
OUTAGES: tuple[Outage, ...] = (ConnectionProblem, TimeoutProblem)
UNREADABLE: tuple[Outage, ...] = (*OUTAGES, IntegrityProblem)
"""Also an object that is missing or damaged: whoever must not guess waits until somebody restores it."""


def patiently(what: str, action: Callable[[], Result], while_raising: tuple[Outage, ...] = OUTAGES) -> Result:
    """``action()``, again and again while it raises one of these; anything else passes."""

    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning(
            "waiting to %s, %.0f s: %s",
            what,
            state.seconds_since_start or 0.0,
            getattr(error, "message", error),
        )

    retrying = Retrying(
        retry=retry_if_exception_type(while_raising),
        wait=wait_random_exponential(multiplier=0.2, max=BACKOFF_S_MAX),
        before_sleep=say,
        reraise=True,
    )
    return retrying(action)


async def patiently_async(
    what: str, action: Callable[[], Result], while_raising: tuple[Outage, ...] = OUTAGES
) -> Result:
    """As ``patiently``, on a thread, so that the event loop goes on."""
    return await asyncio.to_thread(patiently, what, action, while_raising)
