"""The models that devices start from: read once, checked against their hash, shared by all devices of a process."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from aggregation.errors import UsageProblem
from backends.clock import SYSTEM_CLOCK, Clock
from backends.outages import retry_through_outage
from schemas.checkpoints import decode_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from aggregation.layout import Layout
    from aggregation.policy import Policy
    from backends.store.task_store import TaskStore
    from schemas.manifests import Genesis
    from schemas.records import Announcement

CACHED_BASES_MAX: Final = 4
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """A version to train from. ``parameters`` float32[P] is read-only; ``sha256`` names its model.safetensors."""

    version: int
    sha256: str
    parameters: npt.NDArray[np.float32]
    policy: Policy


def arrays_of(flat: npt.NDArray[np.float32], layout: Layout) -> dict[str, npt.NDArray[np.float32]]:
    """float32[P] as the layout's tensors by name, in their shapes. They share ``flat``'s memory."""
    return {
        spec.name: flat[layout.starts[t] : layout.starts[t + 1]].reshape(spec.shape)
        for t, spec in enumerate(layout.tensors)
    }


def flat_of(arrays: Mapping[str, npt.ArrayLike], layout: Layout) -> npt.NDArray[np.float32]:
    """The inverse of ``arrays_of``, from arrays of any float type. UsageProblem FLV-2504: they are not the layout's."""
    shapes = {name: np.shape(array) for name, array in arrays.items()}
    expected = {spec.name: spec.shape for spec in layout.tensors}
    if shapes != expected:
        name = next(name for name in [*expected, *shapes] if shapes.get(name) != expected.get(name))
        raise UsageProblem(
            "FLV-2504",
            f"tensor {name} is {shapes.get(name, 'missing')}, the model's layout has {expected.get(name, 'none')}",
            hint="give every tensor of `device.arrays(base)`, under its name and in its shape",
        )
    parts = [np.asarray(arrays[spec.name], dtype=np.float32).reshape(-1) for spec in layout.tensors]
    return np.concatenate(parts)


class Bases:
    """A small cache over one task's store. Waits out an outage with a visible message.

    ``check`` is called before every attempt; what it raises ends the waiting (a fleet that has to stop).
    """

    def __init__(
        self,
        store: TaskStore,
        genesis: Genesis,
        check: Callable[[], None] = lambda: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.store = store
        self.genesis = genesis
        self.layout = genesis.tensor_layout
        self._first_policy = genesis.first_policy
        self._check = check
        self._clock = clock
        self._bases: OrderedDict[tuple[int, str], Base] = OrderedDict()

    def announced(self, announcement: Announcement) -> Base:
        """The base that an announcement names."""
        return self._base(announcement.version, announcement.model_sha256, announcement.policy_sha256)

    def at(self, version: int) -> Base:
        """The base of an earlier version, by its manifest; UsageProblem (FLV-2507) when there is no such version."""
        if version == 0:
            return self._base(0, self.genesis.model_sha256, self._first_policy.sha256)
        head = self._retry("find the newest version", self.store.head)
        if head is None or not 0 < version <= head.version:
            newest = head.version if head else 0
            raise UsageProblem(
                "FLV-2507",
                f"there is no version {version} of {self.genesis.task}, the newest is {newest}",
                hint=f"list them with `fluvial versions --task {self.genesis.task}`",
            )
        manifest = self._retry(
            f"read manifest {version}", lambda: self.store.signed_manifest(version, self.genesis.trust)
        )
        return self._base(version, manifest.model_sha256, manifest.policy_sha256)

    def _base(self, version: int, sha256: str, policy_sha256: str) -> Base:
        known = self._bases.get((version, sha256))
        if known is not None:
            self._bases.move_to_end((version, sha256))
            return known
        data = self._retry(f"read model {version}", lambda: self.store.model_bytes(version, sha256))
        parameters = decode_model(data, self.layout)
        parameters.setflags(write=False)
        base = Base(version, sha256, parameters, self.policy(policy_sha256))
        self._bases[version, sha256] = base
        while len(self._bases) > CACHED_BASES_MAX:
            self._bases.popitem(last=False)
        return base

    def policy(self, sha256: str) -> Policy:
        """The policy of that hash (hex), which an announcement or manifest names."""
        if self._first_policy.sha256 == sha256:
            return self._first_policy
        for base in self._bases.values():
            if base.policy.sha256 == sha256:
                return base.policy
        return self._retry("read the policy", lambda: self.store.policy(sha256))

    def _retry(self, what: str, action: Callable[[], Result]) -> Result:
        def tried() -> Result:
            self._check()
            return action()

        return retry_through_outage(what, tried, clock=self._clock)
