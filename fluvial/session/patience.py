"""Whether anybody of a run still works, and whether work could still come to anything.

Stalled means that nobody works: no device trains, no verdict comes, no version is made, and the evaluator has nothing
to do. However long a training takes, a run waits for it. A dead end is known sooner: every device has published on the
newest version, all of it is judged, and nothing that was accepted waits for the next.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aggregation.errors import Finding, UsageProblem
from aggregation.fold.rejections import ACCEPTED, CONTROL, PARKED, REJECTIONS, RejectionReason
from fluvial.reading.progress import read_journal
from fluvial.session.limits import DEAD_END_S, EVALUATION_MARGIN_S, LONG_S, STALL_S
from producers.fleet.activity import read_activity
from stream_apps.evaluator.limits import EVALUATION_S_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from aggregation.fold.events import Verdict
    from fluvial.reading.progress import RunFacts
    from producers.fleet.activity import Activity

_LOOK_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class DeadEnd:
    """No version after ``version`` can come.

    ``outcomes``: of the updates that were judged since it was made. ``since_s``: when the first of them was, in seconds
    since 1970 UTC. ``failing``: devices whose rounds fail.
    """

    version: int
    outcomes: Mapping[str, int]
    since_s: float
    failing: int

    def in_words(self) -> str:
        """What has ended, and why."""
        refused = _refused_in_words(self.outcomes, self.failing)
        return f"no version after {self.version} can be made: {refused}"

    def problem(self, task: str) -> Finding:
        """Finding FLV-6311, with what to do."""
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since_s))
        return Finding(
            "FLV-6311",
            self.in_words(),
            where=f"since {since}, after version {self.version}",
            hint=f"{advice(self.outcomes)}\n  each of them: `fluvial verdicts --task {task}`",
        )


def _refused_in_words(outcomes: Mapping[str, int], failing: int) -> str:
    shown = ", ".join(f"{count} as {outcome}" for outcome, count in Counter(outcomes).most_common())
    total = sum(outcomes.values())
    parts = (
        [f"all {total} updates since then are refused, {shown}"]
        if total
        else ["no device has published since"]
    )
    parts += [f"the rounds of {failing} devices fail"] if failing else []
    return "; ".join(parts)


def advice(outcomes: Mapping[str, int]) -> str:
    """What to do where every update is refused, by the most frequent reason."""
    most = max(outcomes, key=lambda outcome: outcomes[outcome], default="")
    if most == RejectionReason.ANOMALOUS.outcome:
        return (
            "honest devices whose updates all change nothing, or turn against the last step, have a model that has "
            "converged, or one whose steps overshoot: the last version stands and can be used. To train on, lower "
            'CONFIG["learning_rate"], or choose another [defence] in POLICY: docs/defences.md'
        )
    rejection = REJECTIONS.get(most)
    return (
        rejection.hint_for_devices
        if rejection is not None
        else "mend what makes the rounds fail, and run again"
    )


def simulated_dead_end(head: int, judged: Iterable[Verdict], failing: int) -> UsageProblem:
    """UsageProblem FLV-2217: the same of a simulation, of all verdicts on its devices' updates."""
    outcomes = Counter(verdict.outcome for verdict in judged if verdict.base_version >= head)
    end = DeadEnd(head, dict(outcomes), 0.0, failing)
    return UsageProblem(
        "FLV-2217", f"every device has published, and {end.in_words()}", hint=advice(end.outcomes)
    )


class Patience:
    """Of one run. ``look`` often; ``now`` is a monotonic clock."""

    def __init__(
        self,
        facts: RunFacts,
        journal: Path,
        *,
        stall_s: float = STALL_S,
        evaluation_s: float = EVALUATION_S_MAX,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stall_s = stall_s
        self._facts = facts
        self._journal = journal
        # Tried twice where it fails, and then its classes and cohorts.
        self._evaluation_s = 3 * evaluation_s + EVALUATION_MARGIN_S
        self._now = now
        self._seen: tuple[int, ...] = ()
        self._moved_s = self._worked_s = self._evaluated_s = now()
        self._looked_s = float("-inf")
        self._activity: Activity | None = None

    def look(self) -> None:
        """Take in what has moved since the last look."""
        now = self._now()
        if now - self._looked_s >= _LOOK_EVERY_S:
            self._looked_s, self._activity = now, read_activity(self._journal)
        facts = self._facts
        with facts.lock:
            seen = (len(facts.evaluations), facts.head(), len(facts.verdicts), facts.failed_rounds.total)
        if not self._seen or seen[0] != self._seen[0]:
            self._evaluated_s = now
        if seen != self._seen:
            self._seen, self._moved_s = seen, now
        trains = self._activity is not None and self._activity.works
        evaluates = self._is_behind() and now - self._evaluated_s <= self._evaluation_s
        if trains:
            self._moved_s = now
        if trains or evaluates or self._moved_s == now:
            self._worked_s = now

    def _is_behind(self) -> bool:
        return self._facts.head() > self._facts.version()

    @property
    def idle_s(self) -> float:
        """For how long nobody has worked."""
        return self._now() - self._worked_s

    @property
    def stalled(self) -> bool:
        """Whether nobody has worked for too long."""
        return self.idle_s > self.stall_s

    def long_work(self) -> list[str]:
        """What takes long at the moment, in words."""
        activity, found = self._activity, []
        if activity is not None and activity.works and activity.training:
            seconds = time.time() - activity.since
            if seconds >= LONG_S:
                others = activity.at_work - 1
                more = f", {others} more to come" if others > 0 else ""
                found.append(f"the training of {activity.training} ({seconds:.0f} s so far{more})")
        waited_s = self._now() - self._evaluated_s
        if self._is_behind() and waited_s >= LONG_S:
            found.append(f"the evaluation of version {self._facts.version() + 1} ({waited_s:.0f} s so far)")
        return found

    def dead_end(self) -> DeadEnd | None:
        """Why no further version can come, once that is certain."""
        activity, facts = self._activity, self._facts
        if activity is None or not activity.is_fresh or activity.works:
            return None
        if self._now() - self._moved_s < DEAD_END_S or self._is_behind():
            return None
        with facts.lock:
            head, outcomes = facts.head(), facts.outcomes()
            merged = [facts.committed.get(version) for version in range(1, head + 1)]
            judged = [
                one
                for one in facts.verdicts.values()
                if one.verdict.base_version >= head and one.verdict.outcome not in {CONTROL, PARKED}
            ]
        if activity.version < head or None in merged:
            return None
        if outcomes.get(ACCEPTED, 0) > sum(count or 0 for count in merged):
            return None  # it waits for a deadline, or for more
        if facts.missing([one.place for one in read_journal(self._journal)]):
            return None
        if not judged and not activity.failing:
            return None
        since_s = min((one.timestamp_ms for one in judged), default=round(time.time() * 1000)) / 1000
        found = Counter(one.verdict.outcome for one in judged)
        return DeadEnd(head, dict(found), since_s, activity.failing)
