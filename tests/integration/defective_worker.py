"""A worker with a defect of ours: its fold raises at one offset of one partition, before or after it has moved on.

``python -m tests.integration.defective_worker PLACE PARTITION OFFSET`` and then the arguments of `fluvial`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import aggregation.fold.transition
from fluvial import cli

if TYPE_CHECKING:
    from aggregation.fold.events import Effect, Update
    from aggregation.fold.state import PartitionState


def install(place: str, partition: int, offset: int) -> None:
    """Give the fold its defect: ``before`` raises when an update is looked at, ``after`` when it is counted already."""
    fold_update = aggregation.fold.transition._fold_update

    def defective(state: PartitionState, at: int, update: Update) -> tuple[Effect, ...]:
        raises = (state.partition, at) == (partition, offset)
        if raises and place == "before":
            raise ZeroDivisionError("a defect of ours")
        effects = fold_update(state, at, update)
        if raises:
            raise ZeroDivisionError("a defect of ours")
        return effects

    aggregation.fold.transition._fold_update = defective


if __name__ == "__main__":
    install(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    sys.exit(cli.main(sys.argv[4:]))
