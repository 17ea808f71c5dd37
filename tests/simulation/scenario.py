"""The simulated task: two regions, one layout, an older and the newest policy, its genesis document, its trust."""

from __future__ import annotations

from functools import cache

import msgspec
import numpy as np
from cryptography.hazmat.primitives.serialization import Encoding

from aggregation.layout import BUFFERS, Layout, TensorSpec
from aggregation.optimizers import initial_state
from aggregation.policy import Policy
from schemas.certificates import Trust
from schemas.checkpoints import encode_model, encode_optimizer
from schemas.manifests import NEWEST_GENESIS, Genesis, Region
from schemas.objects import sha256_hex
from tests import factories
from tests.simulation.keys import RememberingTrust, remember_in_checker

TASK = "sim"
PARTITIONS = {"eu": 2, "us": 1}
LAYOUT = Layout.of(
    [TensorSpec("w", (3,)), TensorSpec("b", ()), TensorSpec("var", (2,), BUFFERS, nonnegative=True)]
)
POLICY = factories.policy(
    window={"updates_max": 3, "records_max": 9, "seconds_max": 1.0},
    buffer={"updates": 5, "seconds_max": 2.0},
    staleness={"versions_max": 2},
    server={"momentum": 0.5, "learning_rate": 0.5},
    anomaly={"history_updates": 8, "history_updates_min": 4},
)
NEWEST_POLICY = factories.policy(
    format="fluvial/policy/v3",
    window={"updates_max": 3, "records_max": 9, "seconds_max": 1.0},
    buffer={"updates": 5, "seconds_max": 2.0},
    staleness={"versions_max": 2, "seconds_max": 3.0},
    server={"momentum": 0.5, "learning_rate": 0.5},
)
"""Of every third run: with shares, a defence, and windows that weigh as late as they come."""
EPOCH_MS = factories.NOW_MS
"""When every run begins."""


def policy_of(seed: int) -> Policy:
    """The policy of a run."""
    return NEWEST_POLICY if _is_newest(seed) else POLICY


def genesis_of(seed: int) -> tuple[Genesis, bytes, bytes]:
    """A run's genesis document, its first model's bytes and its optimizer's."""
    return _genesis(newest=_is_newest(seed))


def trust_of(seed: int) -> Trust:
    """Whom the processes of a run trust; signatures are verified once."""
    return _trust(newest=_is_newest(seed))


def _is_newest(seed: int) -> bool:
    return seed % 3 == 2


@cache
def _genesis(*, newest: bool) -> tuple[Genesis, bytes, bytes]:
    policy = NEWEST_POLICY if newest else POLICY
    model = np.array([0.5, -0.25, 0.125, 1.0, 1.0, 1.0], dtype=np.float32)
    model_bytes = encode_model(model, LAYOUT)
    optimizer = encode_optimizer(initial_state(policy.server, LAYOUT.trainable.parameters))
    pem = {
        name: factories.authority(name).public_bytes(Encoding.PEM).decode()
        for name in (*PARTITIONS, factories.CONTROL)
    }
    genesis = Genesis(
        task=TASK,
        regions={name: Region(count, pem[name]) for name, count in PARTITIONS.items()},
        control_authority=pem[factories.CONTROL],
        layout=factories.entries(LAYOUT),
        policy=msgspec.json.decode(policy.canonical()),
        model_sha256=sha256_hex(model_bytes),
        optimizer_sha256=sha256_hex(optimizer),
        nonce=factories.NONCE,
        format=NEWEST_GENESIS,
    )
    return genesis, model_bytes, optimizer


@cache
def _trust(*, newest: bool) -> Trust:
    remember_in_checker()
    trust = _genesis(newest=newest)[0].trust
    return RememberingTrust(trust.authorities, trust.rules, trust.domain)
