"""The simulated task: two regions, one layout, its genesis document, its trust."""

from __future__ import annotations

from functools import cache

import msgspec
import numpy as np
from cryptography.hazmat.primitives.serialization import Encoding

from aggregation.layout import BUFFERS, Layout, TensorSpec
from aggregation.optimizers import initial_state
from aggregation.policy import ControlPolicy, Policy
from schemas.certificates import Trust
from schemas.checkpoints import encode_model, encode_optimizer
from schemas.manifests import CONTROL_GENESIS, NEWEST_GENESIS, Genesis, Region
from schemas.objects import sha256_hex
from tests import factories
from tests.simulation.keys import RememberingTrust, remember_in_checker

TASK = "sim"
PARTITIONS = {"eu": 2, "us": 1}
LAYOUT = Layout.of(
    [TensorSpec("w", (3,)), TensorSpec("b", ()), TensorSpec("var", (2,), BUFFERS, nonnegative=True)]
)
ALIKE = ControlPolicy().devices
"""Of policies that say nothing of control variates: their tasks have none."""
EPOCH_MS = factories.NOW_MS
"""When every run begins."""


def layout_of(policy: Policy) -> Layout:
    """The layout of runs under a policy."""
    return LAYOUT if policy.control.devices == ALIKE else LAYOUT.with_control()


@cache
def genesis_of(policy: Policy) -> tuple[Genesis, bytes, bytes]:
    """The genesis document of runs under a policy, its first model's bytes and its optimizer's."""
    layout = layout_of(policy)
    model = np.zeros(layout.parameters, dtype=np.float32)
    model[: LAYOUT.parameters] = [0.5, -0.25, 0.125, 1.0, 1.0, 1.0]
    model_bytes = encode_model(model, layout)
    optimizer = encode_optimizer(initial_state(policy.server, layout.trainable.parameters))
    pem = {
        name: factories.authority(name).public_bytes(Encoding.PEM).decode()
        for name in (*PARTITIONS, factories.CONTROL)
    }
    genesis = Genesis(
        task=TASK,
        regions={name: Region(count, pem[name]) for name, count in PARTITIONS.items()},
        control_authority=pem[factories.CONTROL],
        layout=factories.entries(layout),
        policy=msgspec.json.decode(policy.canonical()),
        model_sha256=sha256_hex(model_bytes),
        optimizer_sha256=sha256_hex(optimizer),
        nonce=factories.NONCE,
        format=CONTROL_GENESIS if layout.control.tensors else NEWEST_GENESIS,
    )
    return genesis, model_bytes, optimizer


@cache
def trust_of(policy: Policy) -> Trust:
    """Whom the processes of such a run trust; signatures are verified once."""
    remember_in_checker()
    trust = genesis_of(policy)[0].trust
    return RememberingTrust(trust.authorities, trust.rules, trust.domain)
