"""Version 0 of a task that nobody trains: a layout of so many parameters, for updates of that size."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Final

import numpy as np

from aggregation.layout import Layout
from aggregation.optimizers import initial_state
from backends import keys
from fluvial.local.create import NONCE_BYTES, FirstVersion
from schemas.certificates import CONTROL
from schemas.checkpoints import encode_model, encode_optimizer
from schemas.manifests import NEWEST_GENESIS, Genesis, Region, TensorEntry
from schemas.objects import sha256_hex

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aggregation.policy import Policy

TASK: Final = "synthetic"
ROWS: Final = 100


def layout_of(parameters: int) -> Layout:
    """A matrix of ``ROWS`` columns and a bias: ``parameters`` in all."""
    rows = parameters // ROWS
    rest = parameters - rows * ROWS
    shapes: list[tuple[str, tuple[int, ...]]] = [("weight", (rows, ROWS))] if rows else []
    return Layout.of(shapes + ([("bias", (rest,))] if rest else []))


def first_synthetic(
    parameters: int, *, regions: Mapping[str, int], policy: Policy, folder: Path
) -> FirstVersion:
    """A genesis whose model is all zeros; ``folder`` has the CAs."""
    layout = layout_of(parameters)
    model = encode_model(np.zeros(layout.parameters, dtype=np.float32), layout)
    optimizer = encode_optimizer(initial_state(policy.server, layout.parameters))
    genesis = Genesis(
        task=TASK,
        regions={
            region: Region(
                partitions=partitions, authority=keys.certificate_pem(keys.authority_path(folder, region))
            )
            for region, partitions in sorted(regions.items())
        },
        control_authority=keys.certificate_pem(keys.authority_path(folder, CONTROL)),
        layout=tuple(TensorEntry(spec.name, spec.shape) for spec in layout.tensors),
        policy=json.loads(policy.canonical()),
        model_sha256=sha256_hex(model),
        optimizer_sha256=sha256_hex(optimizer),
        nonce=secrets.token_hex(NONCE_BYTES),
        format=NEWEST_GENESIS,
    )
    return FirstVersion(genesis, model, optimizer, ())
