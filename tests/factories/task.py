"""The tests' task: its names, layouts and policies, and hashes that stand for objects."""

from __future__ import annotations

import hashlib
from typing import Any

from aggregation.fold.rules import TASK_RULES
from aggregation.layout import BUFFERS, Layout, TensorSpec
from aggregation.partitioning import partition_of
from aggregation.policy import Policy, policy_from_mapping
from schemas.manifests import TensorEntry
from schemas.signing import SignatureDomain

TASK = "digits"
REGION = "eu"
CONTROL = "control"
NOW_MS = 1_790_000_000_000
"""LogAppendTime of the tests' records: 2026-09-21, inside every ordinary certificate's life."""
LAYOUT = Layout.of([("bias", ()), ("hidden.weight", (3, 5)), ("out.weight", (7,))])
BUFFERED = Layout.of(
    [
        *LAYOUT.tensors,
        TensorSpec("mean", (3,), BUFFERS),
        TensorSpec("variance", (3,), BUFFERS, nonnegative=True),
    ]
)
"""The same weights, with a batch norm's running statistics."""
BYTES_MAX = 8 << 20


def sha(text: str) -> str:
    """A hash that stands for some object."""
    return hashlib.sha256(text.encode()).hexdigest()


def model_sha(version: int) -> str:
    """The hash of the tests' model of that version."""
    return sha(f"model {version}")


def policy(**sections: Any) -> Policy:
    """A policy: defaults, but for the given sections' keys; of v2, unless they name a ``format``.

    Under v2 a device answers every base, and no barrier says what is usual: that is one thing less in a test of others.
    """
    return policy_from_mapping(sections, default_format="fluvial/policy/v2")


DOMAIN = SignatureDomain.of(TASK_RULES, sha("genesis"))
"""Of a new task, whose genesis document nobody has written."""
NONCE = sha("nonce")
"""In the genesis documents of the tests' tasks."""


def devices(count: int, *, partition: int = 0, partitions: int = 1, start: int = 0) -> list[str]:
    """The first ``count`` device ids, from number ``start`` on, that belong to a partition."""
    found: list[str] = []
    number = start
    while len(found) < count:
        name = f"d-{number:04d}"
        if partition_of(name, partitions) == partition:
            found.append(name)
        number += 1
    return found


def entries(layout: Layout) -> tuple[TensorEntry, ...]:
    """A layout as a genesis document has it; those of before v3 cannot say buffers."""
    return tuple(
        TensorEntry(spec.name, spec.shape, spec.section, nonnegative=spec.nonnegative)
        for spec in layout.tensors
    )
