"""The rounds of ``fluvial device``: train, publish, wait for the verdict, and say what became of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from aggregation.errors import TimeoutProblem
from aggregation.weights.staleness import WEIGHT_ONE
from backends.shown import one_line

if TYPE_CHECKING:
    from aggregation.fold.events import Verdict
    from fluvial.terminal.invocation import Invocation
    from learning import Examples, Task
    from learning.training import LocalResult
    from producers.fleet.failures import FailedRounds
    from producers.sdk.bases import Base
    from producers.sdk.device import Device, Receipt
    from producers.sdk.private_layers import PrivateLayers

CLIP_WORTH_SAYING: Final = 0.999


def run_rounds(  # noqa: PLR0917 (the command's own values)
    invocation: Invocation,
    one: Device,
    task: Task,
    examples: Examples,
    own: PrivateLayers,
    rounds: int,
    timeout_s: float,
) -> tuple[int, FailedRounds]:
    """So many rounds: how many updates were refused, and the rounds that failed. FLV-6310: the last ones all did."""
    from producers.fleet.failures import ROUNDS_FAILED_MAX, FailedRounds, no_round_succeeds
    from producers.sdk.eligibility import NotNowProblem

    failed = FailedRounds()
    done, refused, in_a_row, version = 0, 0, 0, -1
    while done < rounds:
        try:
            with invocation.output.waiting(f"version {version + 1} or newer"):
                base = one.fetch_selected(newer_than=version, timeout_s=timeout_s)
        except TimeoutProblem as error:
            if in_a_row:
                raise no_round_succeeds(failed, 1, in_a_row) from error
            raise
        try:
            outcome = _trained(invocation, one, base, task, examples, own, failed)
        except NotNowProblem as declined:
            # It was able when it fetched: it answers this base, or a newer one, later.
            invocation.output.say(declined.message)
            continue
        done, version = done + 1, base.version
        in_a_row = 0 if outcome is not None else in_a_row + 1
        if in_a_row >= min(ROUNDS_FAILED_MAX, rounds):
            raise no_round_succeeds(failed, 1, in_a_row)
        if outcome is None:
            continue
        receipt, verdict = publish_one(invocation, one, base, outcome, timeout_s)
        invocation.output.line(verdict_document(one, base, receipt, verdict))
        problem = refusal_of(one, receipt, verdict)
        if problem is not None:
            refused += 1
            invocation.output.say(str(problem))
        else:
            invocation.output.print(verdict_line(base, receipt, verdict))
    return refused, failed


def _trained(  # noqa: PLR0917
    invocation: Invocation,
    one: Device,
    base: Base,
    task: Task,
    examples: Examples,
    own: PrivateLayers,
    failed: FailedRounds,
) -> LocalResult | None:
    """One local training; None when it failed, which is taken down in ``failed``. NotNowProblem: see ``train``."""
    from producers.fleet.failures import failed_round
    from producers.sdk.eligibility import NotNowProblem

    started = time.monotonic()
    try:
        outcome = one.train(base, task, examples, private=own.of(one.device_id))
        own.keep(one.device_id, outcome.private)
    except (KeyboardInterrupt, NotNowProblem):
        raise
    except BaseException as error:  # noqa: BLE001 (users' code may raise anything)
        this = failed_round(
            device=one.device_id, region=one.author.region, base_version=base.version, error=error
        )
        first = failed.add(this)
        invocation.output.line({"failed_round": msgspec.to_builtins(this)})
        invocation.output.say(
            this.told() if first else f"the round on version {base.version} failed again: {this.message}"
        )
        return None
    invocation.output.say(
        f"trained version {base.version} on {outcome.num_examples} examples in "
        f"{time.monotonic() - started:.1f} s, loss {outcome.loss:.4f}"
    )
    return outcome


def publish_one(
    invocation: Invocation, one: Device, base: Base, outcome: Any, timeout_s: float
) -> tuple[Receipt, Verdict]:
    """Publish one update and wait for its verdict, saying so."""
    receipt = one.publish(base, outcome)
    invocation.output.say(f"published {receipt.place}")
    with invocation.output.waiting(f"the verdict of a worker of {one.author.region}"):
        return receipt, one.verdict(receipt, timeout_s=timeout_s)


def refusal_of(one: Device, receipt: Receipt, verdict: Verdict) -> Exception | None:
    """A refused update as an error; None for one that counts."""
    from producers.sdk.advice import problem_of

    return problem_of(verdict, f"device {one.device_id} ({one.author.region})   record {receipt.place}")


def verdict_line(base: Base, receipt: Receipt, verdict: Verdict) -> str:
    """A verdict in one line."""
    # The device clips before it rounds, so the fold may still clip by a hair: not worth a word.
    clip = f", {verdict.detail}" if verdict.clip < CLIP_WORTH_SAYING else ""
    weight = verdict.weight / WEIGHT_ONE
    judged = f"on version {base.version}, staleness {verdict.staleness}, weight {weight:.4f}{clip}"
    return one_line(f"{verdict.outcome}: {receipt.place} {judged}")


def verdict_document(one: Device, base: Base, receipt: Receipt, verdict: Verdict) -> dict[str, Any]:
    """A verdict for JSON."""
    from producers.sdk.advice import hint_for

    return {
        "device": one.device_id,
        "region": one.author.region,
        "topic": receipt.topic,
        "partition": receipt.partition,
        "offset": receipt.offset,
        "update_id": receipt.update_id,
        "base_version": base.version,
        "outcome": verdict.outcome,
        "detail": verdict.detail,
        "hint": hint_for(verdict.outcome),
        "staleness": verdict.staleness,
        "weight": verdict.weight / WEIGHT_ONE,
        "clip": verdict.clip,
        "norm": verdict.norm,
    }
