"""Which version holds an update that was accepted, and what is left of it there: it may have come late, or too late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aggregation.server.aggregates import Slot
from aggregation.weights.fixed_point import WEIGHT_ONE
from fluvial.reading.task_view import TaskView
from schemas.manifests import Input, Manifest


@dataclass(frozen=True, slots=True)
class Merged:
    """The window of a version in which an offset stands."""

    manifest: Manifest
    named: Input

    @property
    def sentence(self) -> str:
        """What became of an accepted update of it, for people."""
        late, where = self.manifest.late_versions(self.named), f"version {self.manifest.version} holds it"
        if self.named.is_dropped:
            return (
                f"{where}, and dropped its window: that came {late} versions late, when no update for that base "
                "was welcome any more"
            )
        if self.named.weight < WEIGHT_ONE:
            left = self.named.weight / WEIGHT_ONE
            return f"{where}; its window came {late} versions late and counts {left:.4f} of its weight"
        return where

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "version": self.manifest.version,
            "sequence": self.named.sequence,
            "late_versions": self.manifest.late_versions(self.named),
            "lateness_weight": self.named.weight / WEIGHT_ONE,
            "dropped": self.named.is_dropped,
            "sentence": self.sentence,
        }


def merged_at(view: TaskView, slot: Slot, offset: int) -> Merged | None:
    """The version that holds an offset of a partition; None where none does yet. By halving, a manifest a step."""
    low, high = 1, view.head()
    while low <= high:
        middle = (low + high) // 2
        manifest, inputs = _newest(view, slot, middle, low)
        if manifest is None or inputs[-1].next_offset <= offset:
            low = middle + 1
        elif offset < inputs[0].first_offset:
            high = manifest.version - 1
        else:
            return next(
                (Merged(manifest, one) for one in inputs if one.first_offset <= offset < one.next_offset),
                None,
            )
    return None


def _newest(view: TaskView, slot: Slot, version: int, least: int) -> tuple[Manifest | None, list[Input]]:
    """The newest version from ``version`` down to ``least`` with windows of a partition, and these in their order."""
    for number in range(version, least - 1, -1):
        manifest = view.objects.manifest(number)
        found = [one for one in manifest.inputs if (one.region, one.partition) == slot]
        if found:
            return manifest, sorted(found, key=lambda one: one.sequence)
    return None, []
