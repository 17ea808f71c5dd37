"""A device of one's own in a task with running statistics, from its arrays to the version that holds them."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from producers.sdk.bases import Bases
from producers.sdk.device import Device
from producers.sdk.updates import Author
from schemas.checkpoints import decode_model
from tests import factories
from tests.small_federation import SmallFederation

WEIGHTS = factories.LAYOUT.parameters


def test_what_a_device_trained_of_the_buffers_is_what_the_next_version_holds() -> None:
    federation = SmallFederation(layout=factories.BUFFERED, partitions={"eu": 1})
    bases = Bases(federation.objects, federation.genesis, clock=federation.clock)
    base = bases.at(0)
    means = ([1000.0, -3.0, 0.1], [3000.0, -1.0, 0.3])
    for name, mean in zip(factories.devices(2), means, strict=True):
        device = Device(
            federation.settings,
            Author(federation.genesis, "eu", name, federation.signer(factories.device_signer(name))),
            bases=bases,
            writer=federation.writer,
            announcements=cast("Any", None),
            clock=federation.clock,
        )
        trained = {tensor: array.copy() for tensor, array in device.arrays(base).items()}
        trained["mean"][:] = mean
        trained["variance"][:] = 0.0
        trained["bias"] = trained["bias"] + np.float32(0.5)
        outcome = device.contribution(base, trained, num_examples=10, loss=0.1)
        assert outcome.delta[WEIGHTS:].tolist() == [*trained["mean"].tolist(), 0.0, 0.0, 0.0]
        device.publish(base, outcome)
    federation.close_windows()
    federation.fold()
    manifest = federation.merge()
    model = decode_model(federation.objects.model_bytes(1, manifest.model_sha256), factories.BUFFERED)
    assert model[WEIGHTS:].tolist() == np.array([2000, -2, 0.2, 0, 0, 0], dtype=np.float32).tolist()
    moved = model[:WEIGHTS] - base.parameters[:WEIGHTS]
    assert abs(moved[0] - 0.5) < 1e-6 and not moved[1:].any()
