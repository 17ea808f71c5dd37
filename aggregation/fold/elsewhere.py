"""Control records that are not for the log in which they stand, or whose signer was revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregation.fold.events import Barrier, Pardon, Revoke, Skip, Tick, Verdict
from aggregation.reasons import Reason, because

if TYPE_CHECKING:
    from aggregation.fold.state import PartitionState


def control_elsewhere(
    state: PartitionState, offset: int, event: Barrier | Tick | Revoke | Skip | Pardon
) -> Verdict | None:
    """The verdict on a control record that is meant for another task, region or partition, or whose signer is revoked.

    None if it is ours.
    """
    if event.task != state.task:
        why = because(Reason.CONTROL_OF_ANOTHER_TASK, event.task)
    elif _is_elsewhere(state, event):
        why = because(Reason.CONTROL_OF_ANOTHER_REGION, "" if isinstance(event, Revoke) else event.region)
    elif isinstance(event, Tick | Skip) and event.partition != state.partition:
        why = because(Reason.CONTROL_OF_ANOTHER_PARTITION, event.partition)
    elif event.signer and event.signer in state.revoked:
        why = because(Reason.SIGNER_REVOKED, event.signer.rpartition(":")[2])
    else:
        return None
    return Verdict(offset, why.reason.outcome, why)


def _is_elsewhere(state: PartitionState, event: Barrier | Tick | Revoke | Skip | Pardon) -> bool:
    """Whether it names another region. A barrier of one above is ours too, all else is of its own log's offsets."""
    match event:
        case Revoke():
            return False
        case Barrier():
            return not state.obeys(event)
        case _:
            return event.region != state.region
