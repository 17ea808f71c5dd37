"""The models of versions that a version mixes in (``aggregation.server.mixing``), as their manifests name them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from aggregation.policy import Policy
from aggregation.server.mixing import MixedBase, mixed_bases
from backends.outages import UNREADABLE, retry_through_outage
from schemas.checkpoints import decode_model
from schemas.manifests import Manifest
from stream_apps.merger.named_windows import named_windows
from stream_apps.process_context import ProcessContext

REMEMBERED_BYTES_MAX: Final = 256 << 20
"""Of the models that were read last: what answers one version answers the next one too."""


class Models:
    """Reads versions' models of one task, each held to the hash in its signed manifest."""

    def __init__(self, context: ProcessContext) -> None:
        self._context = context
        self._store = context.store
        self._remembered: OrderedDict[int, npt.NDArray[np.float32]] = OrderedDict()

    def read(self, version: int) -> npt.NDArray[np.float32]:
        """The model of a committed version, float32[P], read-only; waits while it is missing or damaged."""
        if version not in self._remembered:
            what = f"read the model of version {version}, which updates answered"
            model = retry_through_outage(
                what, lambda: self._read(version), UNREADABLE, clock=self._context.clock
            )
            self._remember(version, model)
        self._remembered.move_to_end(version)
        return self._remembered[version]

    def _read(self, version: int) -> npt.NDArray[np.float32]:
        trust, layout = self._context.trust, self._context.layout
        sha256 = (
            self._store.signed_manifest(version, trust).model_sha256
            if version
            else self._context.genesis.model_sha256
        )
        model = decode_model(self._store.model_bytes(version, sha256), layout)
        model.flags.writeable = False
        return model

    def _remember(self, version: int, model: npt.NDArray[np.float32]) -> None:
        self._remembered[version] = model
        while len(self._remembered) > max(1, REMEMBERED_BYTES_MAX // max(1, model.nbytes)):
            self._remembered.popitem(last=False)


def bases_of(context: ProcessContext, manifest: Manifest, policy: Policy) -> Iterable[MixedBase]:
    """What a version mixed in that is vouched for: its windows' records say which versions their updates answered.

    ``policy`` is its parent's. Raises what ``named_windows`` raises.
    """
    if not policy.server.mixing:
        return ()
    counting = [one for one in manifest.inputs if one.accepted and not one.is_dropped]
    records = named_windows(context, counting)
    pairs = [(records[one.sha256], one.weight) for one in counting]
    return mixed_bases(pairs, policy, manifest.version - 1, Models(context).read)
