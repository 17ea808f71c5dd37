"""From a parent and exact sums to the bytes of the next version: pure, so whoever does it gets the same bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aggregation.codecs import Direction
from aggregation.layout import Layout
from aggregation.policy import Policy, ServerPolicy
from aggregation.server.merge import Checkpoint, merge
from aggregation.server.mixing import MixedBase
from aggregation.server.totals import WindowSums, add_windows
from schemas.checkpoints import encode_direction, encode_model, encode_optimizer
from schemas.manifests import Manifest
from schemas.objects import sha256_hex


@dataclass(frozen=True, slots=True)
class Derived:
    """The next checkpoint, and the bytes that go to the store with their hashes; ``reference`` is the step's direction.

    Each is hashed once: that takes longer than making it.
    """

    checkpoint: Checkpoint
    model: bytes
    optimizer: bytes
    reference: bytes
    model_sha256: str
    optimizer_sha256: str
    reference_sha256: str

    def is_what(self, manifest: Manifest) -> bool:
        """Whether model and optimizer are those that the manifest names."""
        named = (manifest.model_sha256, manifest.optimizer_sha256)
        return (self.model_sha256, self.optimizer_sha256) == named


def derive(
    parent: Checkpoint,
    windows: Iterable[WindowSums],
    *,
    updates: int,
    weight_total: int,
    policy: Policy,
    server: ServerPolicy,
    layout: Layout,
    guide: Direction | None = None,
    bases: Iterable[MixedBase] | None = None,
) -> Derived:
    """One global step from ``parent``; the sums of ``windows``, of which none is dropped, are taken one at a time.

    ``updates`` and ``weight_total`` are of these, the weight after lateness; ``server`` is the policy's
    for this version; ``guide`` is the version's, and so are ``bases``, see ``aggregation.server.mixing``.

    Raises ``IntegrityProblem`` (FLV-3004) where no policy allows such sums, counts or weights.
    """
    step = merge(
        parent,
        add_windows(
            windows,
            weights=layout.trainable.parameters,
            elements=layout.sum_elements,
            control=layout.control.parameters,
        ),
        updates=updates,
        weight_total=weight_total,
        policy=policy,
        server=server,
        layout=layout,
        guide=guide,
        bases=bases,
    )
    model = encode_model(step.checkpoint.model, layout)
    optimizer = encode_optimizer(step.checkpoint.optimizer)
    reference = encode_direction(step.reference)
    hashes = [sha256_hex(data) for data in (model, optimizer, reference)]
    return Derived(step.checkpoint, model, optimizer, reference, *hashes)
