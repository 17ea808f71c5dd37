"""Barring a device, or a certificate of any role, from a task: one signed record into every log that it holds for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aggregation.errors import UsageProblem
from backends import keys
from backends.kafka.writing import LogWriter
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import keys_folder
from fluvial.local.create import OPERATOR
from fluvial.local.operators_key import operators_key
from schemas.certificates import CONTROL, ISSUED_BY_CONTROL, NAME_PATTERN, Role
from schemas.topics import models_topic, updates_topic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from backends.log import Position
    from backends.settings import Settings
    from backends.tasks import TaskFile
    from schemas.envelope import KeyPair
    from schemas.manifests import Genesis

CONFIRMED_S: Final = 30.0
_SERIAL: Final = re.compile(r"[0-9a-f]{1,40}")


@dataclass(frozen=True, slots=True)
class Revocation:
    """What is to be barred: a device by its id (then ``serial`` is ""), or one certificate by its serial (hex).

    A device's and a worker's holds in their region's partitions, a merger's, an operator's and a guardian's in all of
    the task.
    """

    settings: Settings
    genesis: Genesis
    region: str
    role: Role
    name: str
    serial: str
    operator: KeyPair
    """Who signs it."""

    @classmethod
    def of(
        cls,
        settings: Settings,
        file: TaskFile,
        *,
        region: str,
        role: str,
        name: str,
        serial: str,
        by_certificate: bool,
        key: Path | str | None = None,
    ) -> Revocation:
        """``key``: the operator's, a file or a ``pkcs11:`` URI; None for the one on this machine.

        Raises UsageProblem: FLV-2301 (name), FLV-2302 (no such key here), FLV-2407 (region), FLV-2408, FLV-2409; what
        opening the operator's key raises.
        """
        kind = Role(role)
        if not NAME_PATTERN.fullmatch(name):
            raise UsageProblem(
                "FLV-2301",
                f"{role} {name!r}: expected 1 to 64 of a-z 0-9 . _ -, beginning and ending with a letter or digit",
            )
        genesis = TaskStore(open_object_store(settings.store), file.task).genesis(file.genesis_sha256)
        if kind in ISSUED_BY_CONTROL:
            region = CONTROL
        elif region not in genesis.regions:
            known = ", ".join(sorted(genesis.regions))
            raise UsageProblem(
                "FLV-2407",
                f"the task {file.task} has no region {region!r}, it has {known}",
                hint="name one of them with `--region`",
            )
        if kind is not Role.DEVICE and not genesis.rules.revokes_all:
            raise UsageProblem(
                "FLV-2408",
                f"{file.task} is of {genesis.format}: in its logs only devices can be revoked, not a {role}",
                hint="a task made anew can revoke every role; in this one, stop whoever has the key from reaching the "
                "broker",
            )
        if kind is not Role.DEVICE or by_certificate or serial:
            path = keys.signer_path(keys_folder(settings.home, file.task), region, kind, name)
            serial = _checked(serial.lower()) if serial else keys.certificate_serial(path)
        operator = operators_key(settings, file.task, genesis.trust, key)
        return cls(settings, genesis, region, kind, name, serial, operator)

    @property
    def task(self) -> str:
        """The task's name."""
        return self.genesis.task

    @property
    def what(self) -> str:
        """In words."""
        return (
            f"certificate {self.serial} of {self.role.value} {self.name}"
            if self.serial
            else f"device {self.name}"
        )

    @property
    def is_told_to_all(self) -> bool:
        """Whether it stands in the models topic too, where mergers and devices hear whose word counts no more."""
        return self.genesis.rules.revokes_all and self.role is not Role.DEVICE

    def warnings(self) -> Iterator[str]:
        """What else comes of it, for people who are about to confirm."""
        if self.serial and self.serial == self.genesis.trust.identify(self.operator.certificate).serial:
            yield (
                "this is the certificate that signs here: from then on this machine can park and revoke nothing in "
                f"{self.task}, until `fluvial ca renew --task {self.task} --region control --role operator {OPERATOR}`"
            )
        if self.role in {Role.WORKER, Role.MERGER, Role.GUARDIAN}:
            yield (
                f"what the {self.role.value} {self.name} signs with it counts no more: give it another one with "
                f"`fluvial ca renew --task {self.task} --region {self.region} --role {self.role.value} {self.name}`, "
                "and start it again"
            )

    def record(self, reason: str) -> dict[str, str]:
        """A Revoke's fields."""
        device = "" if self.serial else self.name
        return {
            "task": self.task,
            "device_id": device,
            "certificate_serial": self.serial,
            "reason": reason,
        }

    def write(self, reason: str) -> Sequence[Position]:
        """Sign with the operator's key, append to every log that it holds for; returns once the broker has them all."""
        record = self.record(reason)
        value = self.operator.of_task(self.genesis.domain).sign("Revoke", record)
        key = (self.name if not self.serial else self.serial).encode()
        writer = LogWriter(self.settings, f"fluvial-revoke-{self.task}")
        regions = (
            self.genesis.partitions
            if self.role in ISSUED_BY_CONTROL
            else {self.region: self.genesis.regions[self.region].partitions}
        )
        futures = [
            writer.append(updates_topic(self.task, region), value, key=key, partition=partition)
            for region, partitions in regions.items()
            for partition in range(partitions)
        ]
        if self.is_told_to_all:
            futures.append(writer.append(models_topic(self.task), value, key=key, partition=0))
        writer.flush(CONFIRMED_S)
        return [future.result(timeout=0) for future in futures]


def _checked(serial: str) -> str:
    serial = serial.removeprefix("0x").lstrip("0")
    if not _SERIAL.fullmatch(serial):
        raise UsageProblem(
            "FLV-2409",
            f"--serial {serial!r} is no serial number: expected up to 40 hexadecimal digits",
            hint="`fluvial ca list` and `fluvial inspect` show it",
        )
    return serial
