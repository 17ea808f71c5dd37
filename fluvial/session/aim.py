"""When a run has trained enough: a number of the task's own is reached, or has not improved for a while."""

from __future__ import annotations

import math
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from aggregation.errors import UsageProblem
from fluvial.reading.quality import Quality, in_digits
from schemas.manifests import Metric
from schemas.task_metric import best_version, higher_is_better, way_of

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Aim:
    """``until``: (name, value) to reach; None for no such. ``patience``: versions without a better one; 0 for no end.

    ``higher_is_better`` of the aim's own number, where it is not the task's metric.
    """

    until: tuple[str, float] | None = None
    patience: int = 0
    higher_is_better: bool | None = None

    def metric(self, quality: Quality) -> Metric | None:
        """By which number the run is ended, and which way is better; None where nothing is known yet."""
        if self.until is None:
            return quality.metric
        name = self.until[0]
        if quality.metric is not None and quality.metric.name == name:
            return quality.metric
        way = self.higher_is_better
        return None if way is None else Metric(name, higher_is_better=way)

    def reached(self, quality: Quality) -> tuple[int, float] | None:
        """(version, value) of the first version above 0 that is as good as ``until``."""
        metric = self.metric(quality)
        if self.until is None or metric is None:
            return None
        sign, wanted = (1 if metric.higher_is_better else -1), self.until[1]
        good = (one for one in quality.curve(metric.name) if one[0] > 0 and sign * one[1] >= sign * wanted)
        return next(good, None)

    def ends(self, quality: Quality, *, first_version: int = 0) -> str:
        """Why the run has trained enough, in words; "" while it has not.

        ``first_version``: where this run began, so that patience is about what it has made.
        """
        self.require_reported(quality)
        reached, metric = self.reached(quality), self.metric(quality)
        if reached is not None and metric is not None:
            return f"version {reached[0]} reaches {metric.name} {in_digits(reached[1])}, wanted was {self.in_words()}"
        if not self.patience or metric is None:
            return ""
        curve = {version: value for version, value in quality.curve(metric.name) if version > 0}
        best = best_version(metric, curve)
        if best is None or max(curve) - max(best, first_version) < self.patience:
            return ""
        than = f"{metric.name} {in_digits(curve[best])}"
        return f"no version since {best} is better than its {than} (--patience {self.patience})"

    def require_reported(self, quality: Quality) -> None:
        """UsageProblem FLV-2248 once a version above 0 was evaluated, and it has no such number."""
        if self.until is not None and any(version > 0 and one for version, one in quality.values.items()):
            require_reported(self.until[0], quality.names)

    def in_words(self) -> str:
        """``accuracy=0.95``."""
        return "" if self.until is None else f"{self.until[0]}={self.until[1]:g}"

    def document(self, quality: Quality) -> dict[str, Any] | None:
        """For JSON; None where a run has no aim."""
        if self.until is None and not self.patience:
            return None
        reached, metric = self.reached(quality), self.metric(quality)
        return {
            "metric": metric.name if metric else None,
            "better": way_of(metric) if metric else None,
            "value": self.until[1] if self.until else None,
            "patience": self.patience or None,
            "reached": None if reached is None else {"version": reached[0], "value": reached[1]},
        }


NO_AIM = Aim()


def parse_until(text: str | None) -> tuple[str, float] | None:
    """``accuracy=0.95``. UsageProblem FLV-2247: it is not NAME=NUMBER."""
    if text is None:
        return None
    name, equals, number = text.rpartition("=")
    try:
        value = float(number) if equals and name.strip() else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageProblem(
            "FLV-2247",
            f"--until {text!r}: expected NAME=NUMBER, a number that evaluate() reports and what it has to reach",
            hint="for example `--until accuracy=0.95`, or `--until mae=0.1`, where lower is better",
        )
    return name.strip(), value


def aim_of(until: str | None, patience: int, metric: Metric | None, where: str) -> Aim:
    """The aim of a run of a task whose METRIC is ``metric``, None where it has none.

    UsageProblem: FLV-2247 (form); FLV-2249, nothing says whether higher or lower is better.
    """
    wanted = parse_until(until)
    if wanted is None:
        return Aim(patience=patience)
    own = metric is not None and metric.name == wanted[0]
    way = metric.higher_is_better if own and metric is not None else higher_is_better(wanted[0])
    if way is None:
        raise UsageProblem(
            "FLV-2249",
            f"--until {until}: nothing says whether higher or lower is better in {wanted[0]!r}",
            where=where,
            hint=f'say it in the task file: `METRIC = ("{wanted[0]}", "lower")`, or "higher"',
        )
    return Aim(wanted, patience, way)


def require_reported(name: str, names: Iterable[str]) -> None:
    """UsageProblem FLV-2248 unless ``name`` is one of the numbers that ``evaluate()`` reports."""
    known = list(names)
    if name in known:
        return
    close = get_close_matches(name, known, n=1)
    raise UsageProblem(
        "FLV-2248",
        f"--until waits for {name!r}, and evaluate() reports {', '.join(known) or 'nothing'}",
        hint=f"did you mean `--until {close[0]}=VALUE`?"
        if close
        else "name one of these, or let evaluate() report it",
    )
