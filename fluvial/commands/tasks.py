"""``fluvial task``, ``fluvial ca``, ``fluvial revoke``: what operators do before and while a task runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from aggregation.errors import UsageProblem
from fluvial.commands.acls import acls
from fluvial.commands.task_life import discard, list_tasks, rm, show, stop, task_document
from fluvial.terminal.invocation import (
    Invocation,
    json_option,
    no_check_option,
    pass_invocation,
    traceback_option,
)
from fluvial.terminal.set_option import set_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backends.log import Position
    from backends.settings import Settings
    from backends.tasks import TaskFile

ROLES: Final = ("device", "worker", "merger", "operator")
REVOKE_CONFIRMED_S: Final = 30.0

data_option = click.option(
    "--data",
    default="",
    metavar="PATH",
    help="Examples of one's own: what local_data(PATH) in the task file returns; a .npz with x and y needs none.",
)


@click.group()
def task() -> None:
    """Create, show, stop and remove training tasks."""


for _command in (list_tasks, show, stop, rm, discard, acls):
    task.add_command(_command)


@task.command("create")
@click.argument("reference")
@click.option("--name", help="Default: what the task file says.")
@click.option(
    "--regions",
    default="eu:2,us:2",
    show_default=True,
    metavar="R:N[,R:N]",
    help="Regions and their partitions.",
)
@click.option(
    "--policy",
    "policy_path",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A policy in TOML (docs/policy.md). It goes before the task file's POLICY.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Draws the first model."
)
@click.option(
    "--from", "origin", metavar="TASK@VERSION",
    help="Begin with the model of this version of another task; TASK alone is its newest.",
)  # fmt: skip
@set_option
@no_check_option
@traceback_option
@json_option
@pass_invocation
def create(
    invocation: Invocation,
    *,
    reference: str,
    name: str | None,
    regions: str,
    policy_path: Path | None,
    seed: int,
    given: dict[str, Any],
    origin: str | None,
    no_check: bool,
) -> None:
    """Create a task from REFERENCE: a shipped one (digits, fashion) or your own .py file. Repeating it is harmless."""
    from fluvial.local.checking import check_users
    from fluvial.local.create import create_task, parse_regions
    from fluvial.local.policies import read_policy_file
    from learning.task import load_task

    wanted, settings, loaded = parse_regions(regions), invocation.settings("admin"), load_task(reference)
    if not no_check:
        check_users(loaded, invocation.output, seed=seed)
    file = create_task(
        settings,
        reference=reference,
        name=name,
        regions=wanted,
        policy_text=read_policy_file(policy_path),
        seed=seed,
        given=given or None,
        origin=origin,
        output=invocation.output,
    )
    invocation.output.document(task_document(file))
    invocation.output.print(f"task {file.task}   genesis {file.genesis_sha256}")
    invocation.output.print(f"run it: `fluvial merger --task {file.task}`, then for each region R")
    work = f"        `fluvial worker --task {file.task} --region R`, and"
    if loaded.has_data:
        invocation.output.print(f"{work} `fluvial fleet --task {file.task}`")
        return
    invocation.output.print(f"{work} devices with data of their own:")
    invocation.output.print(f"        `fluvial device run --task {file.task} --region R --id ID --data PATH`")
    invocation.output.print(
        f"it is evaluated where `fluvial evaluator --task {file.task} --data PATH` runs, and else by nobody"
    )


@task.command("check")
@click.argument("reference", metavar="FILE")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 86_400),
    default=30.0,
    show_default=True,
    help="Leave it after so long.",
)
@data_option
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Draws the first model."
)
@traceback_option
@json_option
@pass_invocation
def check(invocation: Invocation, *, reference: str, seconds: float, data: str, seed: int) -> None:
    """Try a task FILE before anything is started: load it and its data, train one batch, evaluate."""
    from fluvial.local.checking import check_first
    from learning.task import load_task

    loaded = load_task(reference)
    report = check_first(loaded, invocation.output, seed=seed, seconds_max=seconds, path=data)
    invocation.output.document(
        {
            "task": loaded.name,
            "file": str(loaded.path),
            "complete": not report.unfinished,
            "unfinished": report.unfinished,
            "seconds": round(report.seconds, 3),
            "train": report.trained,
            "evaluate": report.evaluated,
            "step_norm": report.step_norm,
            "notes": report.notes,
        }
    )
    way = f"run it: `fluvial run {reference} --simulate`"
    invocation.output.print(way if loaded.has_data else f"create it: `fluvial task create {reference}`")


task_option = click.option("--task", "task_name", help="Default: the newest on this machine.")
region_option = click.option("--region", required=True, help="A region of the task.")


@click.group()
def ca() -> None:
    """Make a region's certificate authority, issue certificates."""


@ca.command("init")
@task_option
@click.option("--region", required=True, help="A region, or `control` (mergers and operators).")
@json_option
@pass_invocation
def ca_init(invocation: Invocation, *, task_name: str | None, region: str) -> None:
    """Make the certificate authority of a region. One that is there already is left as it is."""
    from backends.keys import certificate_serial, create_authority

    path = create_authority(_folder_for_init(invocation, task_name, region), region)
    invocation.output.document({"region": region, "path": str(path), "serial": certificate_serial(path)})
    invocation.output.print(f"CA of {region}: {path}")


def _folder_for_init(invocation: Invocation, task_name: str | None, region: str) -> Path:
    """A CA may be made before its task; once the task is created, its regions are fixed."""
    from backends.tasks import keys_folder, read_task_file, task_names
    from learning.names import check_task_name
    from schemas.certificates import CONTROL

    if task_name is not None and task_name not in task_names(invocation.home):
        return keys_folder(invocation.home, check_task_name(task_name, "--task"))
    file = read_task_file(invocation.home, task_name)
    if region != CONTROL:
        check_known_region(file, region)
    return keys_folder(invocation.home, file.task)


@ca.command("issue")
@task_option
@region_option
@click.option("--role", type=click.Choice(ROLES), default="device", show_default=True)
@click.option(
    "--days", type=click.FloatRange(min=0, min_open=True), default=365.0, show_default=True, help="Validity."
)
@click.argument("name")
@json_option
@pass_invocation
def ca_issue(
    invocation: Invocation, *, task_name: str | None, region: str, role: str, days: float, name: str
) -> None:
    """Issue a key and certificate to NAME. One that is there already is left as it is.

    A region's CA vouches for its devices and workers, the control CA (`--region control`) for mergers and operators.
    """
    from backends.keys import certificate_serial, issue, signer_path
    from backends.tasks import keys_folder, read_task_file
    from schemas.certificates import CONTROL, ISSUED_BY_CONTROL, Role

    file = read_task_file(invocation.home, task_name)
    kind = Role(role)
    if kind not in ISSUED_BY_CONTROL or region != CONTROL:
        check_known_region(file, region)
    region = CONTROL if kind in ISSUED_BY_CONTROL else region
    folder = keys_folder(invocation.home, file.task)
    is_new = not signer_path(folder, region, kind, name).exists()
    path = issue(folder, region, kind, name, days=days)
    serial = certificate_serial(path)
    invocation.output.document(
        {
            "task": file.task,
            "region": region,
            "role": role,
            "name": name,
            "path": str(path),
            "serial": serial,
            "new": is_new,
        }
    )
    invocation.output.print(
        f"{role} {name} ({region}){'' if is_new else ', issued before'}: {path}   serial {serial}"
    )


@ca.command("list")
@task_option
@json_option
@pass_invocation
def ca_list(invocation: Invocation, *, task_name: str | None) -> None:
    """List authorities and issued certificates on this machine."""
    from backends.tasks import keys_folder, read_task_file

    file = read_task_file(invocation.home, task_name)
    entries = [_describe_key(path) for path in _key_paths(keys_folder(invocation.home, file.task))]
    invocation.output.document({"task": file.task, "certificates": entries})
    columns = ("region", "role", "name", "expires", "serial")
    invocation.output.table(columns, [[entry[column] for column in columns] for entry in entries])


def _key_paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-ca.pem")) + sorted(folder.glob("*/*/*.pem"))


def _describe_key(path: Path) -> dict[str, str]:
    from cryptography import x509

    from backends.keys import certificate_pem

    certificate = x509.load_pem_x509_certificate(certificate_pem(path).encode())
    is_authority = path.name.endswith("-ca.pem") and path.parent.name == "keys"
    return {
        "region": path.name.removesuffix("-ca.pem") if is_authority else path.parent.parent.name,
        "role": "CA" if is_authority else path.parent.name,
        "name": "" if is_authority else path.stem,
        "expires": certificate.not_valid_after_utc.strftime("%Y-%m-%d %H:%M"),
        "serial": f"{certificate.serial_number:x}",
        "path": str(path),
    }


@click.command()
@task_option
@region_option
@click.option(
    "--certificate", is_flag=True, help="Bar only the certificate on this machine, not the device id."
)
@click.option("--reason", required=True, help="For people; it stands in the log for ever.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("device")
@json_option
@pass_invocation
def revoke(
    invocation: Invocation,
    *,
    task_name: str | None,
    region: str,
    certificate: bool,
    reason: str,
    yes: bool,
    device: str,
) -> None:
    """Bar DEVICE from a task, from now on. Updates that were accepted before stay counted."""
    from backends.tasks import read_task_file

    settings = invocation.settings("operator")
    file = read_task_file(invocation.home, task_name)
    check_known_region(file, region)
    record = _revocation(settings, file, region, device, reason, certificate=certificate)
    what = f"certificate {record['certificate_serial']} of {device}" if certificate else f"device {device}"
    invocation.output.confirm(f"bar {what} from {file.task} for ever?", yes=yes)
    positions = _append_everywhere(settings, file, region, record)
    places = [{"topic": p.topic, "partition": p.partition, "offset": p.offset} for p in positions]
    invocation.output.document(record | {"region": region, "positions": places})
    invocation.output.print(f"revoked {what} ({region}): {reason}")
    for position in positions:
        invocation.output.print(f"  from {position.topic}[{position.partition}]@{position.offset} on")


def _revocation(
    settings: Settings, file: TaskFile, region: str, device: str, reason: str, *, certificate: bool
) -> dict[str, str]:
    from backends.keys import certificate_serial, signer_path
    from backends.tasks import keys_folder
    from schemas.certificates import NAME_PATTERN, Role

    if not NAME_PATTERN.fullmatch(device):
        raise UsageProblem(
            "FLV-2301",
            f"device {device!r}: expected 1 to 64 of a-z 0-9 . _ -, beginning and ending with a letter or digit",
        )
    serial = ""
    if certificate:
        serial = certificate_serial(
            signer_path(keys_folder(settings.home, file.task), region, Role.DEVICE, device)
        )
    return {
        "task": file.task,
        "device_id": "" if certificate else device,
        "certificate_serial": serial,
        "reason": reason,
    }


def _append_everywhere(
    settings: Settings, file: TaskFile, region: str, record: dict[str, str]
) -> Sequence[Position]:
    """Sign with the operator's key, append to every partition of the region, return once the broker has them all."""
    from backends.kafka.reading import LogReader
    from backends.kafka.writing import LogWriter
    from backends.keys import load_key_pair, signer_path
    from backends.store.factory import open_object_store
    from backends.store.task_store import TaskStore
    from backends.tasks import keys_folder
    from fluvial.local.create import OPERATOR
    from schemas.certificates import CONTROL, Role
    from schemas.topics import updates_topic

    genesis = TaskStore(open_object_store(settings.store), file.task).genesis(file.genesis_sha256)
    path = signer_path(keys_folder(settings.home, file.task), CONTROL, Role.OPERATOR, OPERATOR)
    value = load_key_pair(path).of_task(genesis.domain).sign("Revoke", record)
    topic = updates_topic(file.task, region)
    with LogReader(settings, f"fluvial-revoke-{file.task}") as reader:
        partitions = reader.partitions(topic)
    writer = LogWriter(settings, f"fluvial-revoke-{file.task}")
    key = (record["device_id"] or record["certificate_serial"]).encode()
    futures = [writer.append(topic, value, key=key, partition=partition) for partition in partitions]
    writer.flush(REVOKE_CONFIRMED_S)
    return [future.result(timeout=0) for future in futures]


def check_known_region(file: TaskFile, region: str) -> None:
    """UsageProblem FLV-2407 unless the task has ``region``."""
    if region not in file.regions:
        raise UsageProblem(
            "FLV-2407",
            f"the task {file.task} has no region {region!r}, it has {', '.join(file.regions)}",
            hint="name one of them with `--region`; a task's regions are fixed when it is created",
        )
