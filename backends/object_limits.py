"""How large an object may be, by its kind: whoever may write the store must not fill a reader's memory.

Bytes are held against a hash once they are there. So a reader asks for no more than an object of that kind can have,
and a larger one is damage (FLV-4105). Where a task's genesis document is known, its layout says how large files are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aggregation.errors import IntegrityProblem
from aggregation.merges import BUCKETS_MAX

if TYPE_CHECKING:
    from schemas.manifests import Genesis

MANIFEST_BYTES_MAX: Final = 64 << 20
"""Of a manifest or a genesis document. A window takes 350 bytes of one."""
FACTS_BYTES_MAX: Final = 4 << 20
"""Of ``facts.json``."""
FILE_BYTES_MAX: Final = 64 << 30
"""Of a version's model or optimizer where the task's layout is not known."""
OBJECT_BYTES_MAX: Final = 16 << 30
"""Of an object where the task's layout is not known."""
SUMS_BYTES_MAX: Final = 4 << 30
"""Of a window's sums in several buckets: below the 5 GiB that S3 takes at once."""
STATE_BYTES_MAX: Final = 256 << 20
"""Of a partition's snapshot, a policy, a direction's scales, a program: what does not grow with the layout."""
HEADER_BYTES_MAX: Final = 1 << 20
"""Of a safetensors file beside its arrays, and ``TENSOR_BYTES_MAX`` a tensor."""
TENSOR_BYTES_MAX: Final = 1024
OPTIMIZER_ARRAYS_MAX: Final = 4
"""Arrays of float64 that an optimizer keeps for each weight; adam has two."""


class ObjectTooLarge(IntegrityProblem):  # the name callers read best at ``except``
    """FLV-4105: an object has more bytes than any of its kind."""

    def __init__(self, key: str, bytes_max: int, *, where: str = "") -> None:
        super().__init__(
            "FLV-4105",
            f"object {key!r} is larger than any of its kind: more than {bytes_max} bytes",
            where=where,
            hint="somebody who may write the store put it there: restore the right one from a backup, `fluvial audit` "
            "names everything that differs",
        )


class ObjectLimits:
    """The limits of one store's objects, by key. ``learn`` makes a task's closer."""

    def __init__(self) -> None:
        self._learned: dict[str, tuple[int, int, int]] = {}

    def of(self, key: str, bytes_max: int | None = None) -> int:
        """How many bytes the object under this key may have; no more than ``bytes_max``, where somebody knows that."""
        of_kind = self._of_kind(key)
        return of_kind if bytes_max is None else min(of_kind, bytes_max)

    def _of_kind(self, key: str) -> int:
        task, _, rest = key.partition("/")
        model, optimizer, other = self._learned.get(task, (FILE_BYTES_MAX, FILE_BYTES_MAX, OBJECT_BYTES_MAX))
        if not rest.startswith("versions/"):
            return other
        names = {"manifest.json": MANIFEST_BYTES_MAX, "facts.json": FACTS_BYTES_MAX}
        names |= {"model.safetensors": model, "optimizer.safetensors": optimizer}
        return names.get(rest.rpartition("/")[2], other)

    def learn(self, genesis: Genesis) -> None:
        """A task's files and sums are as large as its layout says; its objects as large as its genesis names any.

        A later policy may have more buckets than the first: so sums of as many as there can be. Who knows how many
        there are says so when he reads.
        """
        layout = genesis.tensor_layout
        header = HEADER_BYTES_MAX + TENSOR_BYTES_MAX * len(layout.tensors)
        named = [one.size for one in (genesis.model.frozen, genesis.code) if one is not None]
        sums = max(8 * layout.sum_elements, min(SUMS_BYTES_MAX, 8 * layout.sum_elements_of(BUCKETS_MAX)))
        largest = max([sums, STATE_BYTES_MAX, *named]) + header
        self._learned[genesis.task] = (
            min(FILE_BYTES_MAX, 4 * layout.parameters + header),
            min(FILE_BYTES_MAX, 8 * OPTIMIZER_ARRAYS_MAX * layout.trainable.parameters + header),
            min(OBJECT_BYTES_MAX, largest),
        )
