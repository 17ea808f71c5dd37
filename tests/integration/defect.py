"""A defect of ours for a worker: its fold raises at one offset of one partition, before or after it has moved on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aggregation.fold.transition

if TYPE_CHECKING:
    from aggregation.fold.events import Update, Verdict, WindowClosed
    from aggregation.fold.state import PartitionState


def install_defect(place: str, partition: int, offset: int) -> None:
    """Give this process's fold its defect: ``before`` raises when an update is looked at, ``after`` when it counts."""
    fold_update = aggregation.fold.transition._fold_update

    def defective(state: PartitionState, at: int, update: Update) -> tuple[Verdict | WindowClosed, ...]:
        raises = (state.partition, at) == (partition, offset)
        if raises and place == "before":
            raise ZeroDivisionError("a defect of ours")
        effects = fold_update(state, at, update)
        if raises:
            raise ZeroDivisionError("a defect of ours")
        return effects

    vars(aggregation.fold.transition)["_fold_update"] = defective
