"""What is read beside the logs: the genesis document, manifests, and objects by hash."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Protocol

import rfc8785
from safetensors import SafetensorError

from fluvial.proof.checker.arithmetic import Direction, Tensor, direction_from, sha256, stored_form
from fluvial.proof.checker.buffers import DIGITS
from fluvial.proof.checker.control import flaw_of
from fluvial.proof.checker.report import Slot
from fluvial.proof.checker.wire import CONTROL, Notary, notary_of

NO_DIRECTION: Final = (SafetensorError, KeyError, ValueError, TypeError, OverflowError)
"""What reading a direction raises on bytes that are none."""


class Damaged(Exception):
    """An object or document that is not there, or not what its hash says: what depends on it cannot be recomputed."""


class Objects(Protocol):
    """The object store, read only."""

    def get(self, key: str, /) -> bytes | None:
        """An object's bytes; None where there is none."""
        ...

    def keys(self, prefix: str, /) -> Iterable[str]:
        """All keys that begin with ``prefix``."""
        ...


POLICY_FORMATS: Final = frozenset({None, *(f"fluvial/policy/v{number}" for number in (2, 3, 4, 5, 6))})
"""A v1 document does not say its format. v2 has the same keys with the same meanings; see ``standing`` for v3's.

v4 has those of v3 and ``merge`` beside; see ``buckets`` and ``merges``. v5 has ``weights``, ``selection`` and
``schedule`` as well; see ``lots`` and ``rates``. v6 has ``control``, ``server.mixing``, lots by cohort and edges.
"""
GENESIS_FORMATS: Final = frozenset(f"fluvial/genesis/v{number}" for number in (1, 2, 3, 4, 5, 6))
WITH_SECTIONS: Final = GENESIS_FORMATS - {"fluvial/genesis/v1", "fluvial/genesis/v2"}
"""v2 says each tensor's section, which means nothing before v3: there a buffer is one. See ``buffers``."""
WITH_RULES: Final = WITH_SECTIONS - {"fluvial/genesis/v3"}
"""Formats that say the rules of records."""
WITH_NONCE: Final = WITH_RULES - {"fluvial/genesis/v4"}
"""Formats in whose tasks a signature names the genesis document, which holds a nonce."""
WITH_CONTROL: Final = WITH_NONCE - {"fluvial/genesis/v5"}
"""Formats that know control variates. See ``control``."""
MANIFEST_FORMATS: Final = frozenset({"fluvial/manifest/v1"})
SIGNED_MANIFEST_FORMATS: Final = frozenset({"fluvial/manifest/v2", "fluvial/manifest/v3"})
"""Those of tasks whose signatures name the genesis document: a merger signs them. v3 is of policies since v3."""


def known_format(document: dict[str, Any], formats: frozenset[str | None], what: str) -> None:
    """``Damaged`` where a document is of a format that this checker cannot read: it would guess what it means."""
    name = document.get("format")
    if not isinstance(name, str | None) or name not in formats:
        raise Damaged(f"{what} is of the format {name!r}, which this checker does not know")


@dataclass(frozen=True, slots=True)
class Task:
    """The genesis document, taken apart. ``policy`` is the first policy, as its JSON says.

    ``verdicts`` is the version of Verdict that its workers write.
    """

    name: str
    genesis_sha256: str
    partitions: dict[str, int]
    layout: list[Tensor]
    policy: dict[str, Any]
    policy_sha256: str
    model_sha256: str
    optimizer_sha256: str
    notary: Notary = field(compare=False)
    verdicts: int

    def certificate_name(self, serial: str) -> str:
        """How a revoked certificate is called in a partition's state; since v5 no device can be called so."""
        return "certificate:" + serial if serial and self.notary.revokes_all else serial

    @property
    def slots(self) -> list[Slot]:
        """Every partition, in the order (region, partition)."""
        return [(region, p) for region in sorted(self.partitions) for p in range(self.partitions[region])]

    @property
    def weights(self) -> list[Tensor]:
        """The tensors that are learned by deltas: the first of the layout."""
        return [tensor for tensor in self.layout if not tensor.is_buffer and not tensor.is_control]

    @property
    def buffers(self) -> list[Tensor]:
        """The tensors of running statistics: they stand behind the weights."""
        return [tensor for tensor in self.layout if tensor.is_buffer]

    @property
    def control(self) -> list[Tensor]:
        """The tensors of control variates: the last of the layout, one for each weight or none."""
        return [tensor for tensor in self.layout if tensor.is_control]

    @property
    def parameters(self) -> int:
        """Elements of the weights."""
        return _elements(self.weights)

    @property
    def digits(self) -> int:
        """int64 of a window's sums that are of the buffers: ten an element."""
        return DIGITS * _elements(self.buffers)

    @property
    def sum_elements(self) -> int:
        """int64 of a window's sums: one a weight, then ten an element of the buffers, then one of each of control."""
        return self.parameters + self.digits + _elements(self.control)


def _elements(tensors: list[Tensor]) -> int:
    return sum(tensor.end - tensor.begin for tensor in tensors)


def object_key(task: str, name: str) -> str:
    """Where an object lies that its SHA-256 names."""
    return f"{task}/objects/{name[:2]}/{name}"


def version_key(task: str, version: int, name: str) -> str:
    """Where a version's file lies."""
    return f"{task}/versions/{version}/{name}"


@lru_cache(maxsize=16)
def task_of(genesis: bytes) -> Task:
    """The task that a genesis document describes; ``Damaged`` where it or its policy is of an unknown format."""
    document = json.loads(genesis)
    known_format(document, GENESIS_FORMATS, "the genesis document")
    known_format(document["policy"], POLICY_FORMATS, "the first policy")
    layout = _layout(document)
    canonical, verdicts = _rules(document)
    regions = document["regions"]
    authorities = {name: region["authority"] for name, region in regions.items()}
    authorities[CONTROL] = document["control_authority"]
    return Task(
        name=document["task"],
        genesis_sha256=sha256(genesis),
        partitions={name: region["partitions"] for name, region in regions.items()},
        layout=layout,
        policy=document["policy"],
        policy_sha256=sha256(rfc8785.dumps(document["policy"])),
        model_sha256=document["model_sha256"],
        optimizer_sha256=document["optimizer_sha256"],
        notary=notary_of(
            tuple(sorted(authorities.items())), canonical=canonical, named=_named(document, genesis)
        ),
        verdicts=verdicts,
    )


def _layout(document: dict[str, Any]) -> list[Tensor]:
    """The tensors of a genesis document; ``Damaged`` where its sections are none."""
    layout, begin = [], 0
    if document["format"] in WITH_CONTROL and (flaw := flaw_of(document["layout"])):
        raise Damaged(f"the layout of the genesis document {flaw}")
    with_sections = document["format"] in WITH_SECTIONS
    for tensor in document["layout"]:
        end = begin + math.prod(tensor["shape"])
        section = tensor["section"] if with_sections else "weights"
        nonnegative = with_sections and tensor["nonnegative"]
        kinds = section == "buffers", nonnegative, section == "control"
        layout.append(Tensor(tensor["name"], tuple(tensor["shape"]), begin, end, *kinds))
        begin = end
    if document["format"] not in WITH_CONTROL and any(one.is_control for one in layout):
        raise Damaged("the genesis document has control variates, which its format does not know")
    if layout != sorted(layout, key=lambda tensor: tensor.is_buffer + 2 * tensor.is_control):
        raise Damaged("the genesis document has a buffer before a weight")
    return layout


def _named(document: dict[str, Any], genesis: bytes) -> str:
    """The hash that the task's signatures name; "" before v5. ``Damaged`` where a nonce is none."""
    if document["format"] not in WITH_NONCE:
        return ""
    nonce = document.get("nonce")
    if not isinstance(nonce, str) or not re.fullmatch(r"[0-9a-f]{64}", nonce):
        raise Damaged(f"the genesis document's nonce is {nonce!r}, not 64 hex digits in lower case")
    return sha256(genesis)


def _rules(document: dict[str, Any]) -> tuple[bool, int]:
    """Whether records count in their one encoding only, and the version of verdicts; ``Damaged`` for rules unknown.

    Documents before v4 say neither. In v4 the first is true, always.
    """
    if document["format"] not in WITH_RULES:
        return False, 1
    said = document.get("records")
    if not isinstance(said, dict) or said.keys() != {"canonical", "verdicts"}:
        raise Damaged(
            f"the genesis document's rules of records are {said!r}, which this checker does not know"
        )
    canonical, verdicts = said["canonical"], said["verdicts"]
    if canonical is not True or type(verdicts) is not int or verdicts not in {1, 2}:
        raise Damaged(
            f"the genesis document's rules of records are {said!r}, which this checker does not know"
        )
    return canonical, verdicts


class Shelf:
    """A task's objects by hash, each checked against it. Policies and directions are kept once they are read."""

    def __init__(self, objects: Objects, task: Task) -> None:
        self.objects = objects
        self.task = task
        self._policies: dict[str, dict[str, Any]] = {task.policy_sha256: task.policy}
        self._directions: dict[str, Direction] = {}

    def named(self, name: str) -> bytes:
        """The object whose SHA-256 is ``name``; ``Damaged`` where it is missing or another, or that is no hash."""
        if not re.fullmatch(r"[0-9a-f]{64}", name):
            raise Damaged(f"no object is called {name[:80]!r}")
        return self.file(object_key(self.task.name, name), name)

    def file(self, key: str, expected_sha256: str) -> bytes:
        """The object under ``key``; ``Damaged`` where it is missing or not what ``expected_sha256`` says."""
        data = self.objects.get(key)
        if data is None:
            raise Damaged(f"{key} is missing")
        if sha256(data) != expected_sha256:
            raise Damaged(f"{key} is damaged: its SHA-256 is {sha256(data)}, expected {expected_sha256}")
        return data

    def policy(self, name: str) -> dict[str, Any]:
        """The policy document that ``name`` names."""
        if name not in self._policies:
            policy = json.loads(self.named(name))
            known_format(policy, POLICY_FORMATS, f"policy {name}")
            self._policies[name] = policy
        return self._policies[name]

    def direction(self, name: str) -> Direction | None:
        """The global step that ``name`` names; None for ""."""
        if not name:
            return None
        if name not in self._directions:
            found = direction_from(self.named(name), self.task.weights)
            if len(self._directions) >= 4:  # noqa: PLR2004 (partitions go through the versions one after another)
                self._directions.pop(next(iter(self._directions)))
            self._directions[name] = found
        return self._directions[name]

    def direction_in(self, data: bytes) -> Direction | None:
        """The direction in a guide's bytes; None where they are none of the task's layout, or not in its one form."""
        try:
            found = direction_from(data, self.task.weights)
        except NO_DIRECTION:
            return None
        return found if stored_form(found.q, found.scales) == data else None
