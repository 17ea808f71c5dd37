"""``none``: every update counts as the policy clips it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from aggregation.defences.shape import COUNTS, Defence, DefenceParameters, Judged, Seen

if TYPE_CHECKING:
    from aggregation.defences.norms import NormHistory
    from aggregation.defences.usual import Usual


class Undefended(Defence):
    """See the module."""

    name: ClassVar[str] = "none"

    def judge(
        self,
        parameters: DefenceParameters,  # noqa: ARG002 (it looks at nothing)
        seen: Seen,  # noqa: ARG002
        usual: Usual,  # noqa: ARG002
        history: NormHistory,  # noqa: ARG002
    ) -> Judged:
        """See ``Defence``."""
        return COUNTS
