"""``fluvial device``: one device, against a running task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aggregation.codecs import CODECS, DEFAULT_CODEC
from aggregation.errors import UsageProblem
from fluvial.commands.device_data import check_choice, load_program_and_data
from fluvial.commands.device_rounds import (
    publish_one,
    refusal_of,
    run_rounds,
    verdict_document,
    verdict_line,
)
from fluvial.commands.tasks import check_known_region, data_option, region_option, task_option
from fluvial.terminal.invocation import Invocation, json_option, pass_invocation, traceback_option
from fluvial.terminal.key_place import KeyPlace
from fluvial.terminal.numbers import ANY, NOT_NEGATIVE
from fluvial.terminal.set_option import set_option

if TYPE_CHECKING:
    from backends.tasks import TaskFile
    from producers.sdk.device import Device


@click.group()
def device() -> None:
    """Fetch, train and publish as one device."""


id_option = click.option("--id", "device_id", required=True, help="The device's id, as in its certificate.")
key_option = click.option(
    "--key",
    type=KeyPlace(),
    help="Its key file, or a pkcs11: URI. Default: the file that `fluvial ca issue` wrote on this machine.",
)
codec_option = click.option(
    "--codec", type=click.Choice(list(CODECS)), default=DEFAULT_CODEC, show_default=True
)
timeout_option = click.option(
    "--timeout", "timeout_s", type=NOT_NEGATIVE, default=60.0, show_default=True, help="Seconds to wait."
)


@device.command()
@task_option
@region_option
@id_option
@key_option
@timeout_option
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Default: TASK-VERSION.safetensors"
)
@json_option
@pass_invocation
def fetch(
    invocation: Invocation,
    *,
    task_name: str | None,
    region: str,
    device_id: str,
    key: Path | str | None,
    timeout_s: float,
    out: Path | None,
) -> None:
    """Write the newest announced model, all of it, to a safetensors file."""
    file, one = _open(invocation, task_name=task_name, region=region, device_id=device_id, key=key)
    with one:
        with invocation.output.waiting("an announced model (is a merger running?)"):
            base = one.fetch(timeout_s=timeout_s)
        path = out or Path(f"{file.task}-{base.version}.safetensors")
        path.write_bytes(one.state_file(base))
    facts = {
        "task": file.task,
        "version": base.version,
        "sha256": base.sha256,
        "path": str(path),
        "parameters": base.parameters.size,
    }
    invocation.output.document(facts)
    invocation.output.print(f"version {base.version} ({base.sha256[:16]}) is in {path}")
    invocation.output.print(
        f"publish what you make of it: `fluvial device publish --task {file.task} --region {region} --id {device_id} "
        f"--base {base.version} --examples N FILE`"
    )


@device.command()
@task_option
@region_option
@id_option
@key_option
@timeout_option
@codec_option
@click.option(
    "--base",
    "base_version",
    type=click.IntRange(0),
    help="The version FILE was trained from. Default: the newest.",
)
@click.option(
    "--examples", "num_examples", type=click.IntRange(1), required=True, help="Examples trained on."
)
@click.option("--loss", type=ANY, default=0.0, show_default=True, help="Mean training loss, for metrics.")
@click.argument("model", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@json_option
@pass_invocation
def publish(
    invocation: Invocation,
    *,
    task_name: str | None,
    region: str,
    device_id: str,
    key: Path | str | None,
    timeout_s: float,
    codec: str,
    base_version: int | None,
    num_examples: int,
    loss: float,
    model: Path,
) -> None:
    """Publish the trained model in the file MODEL, and wait for its verdict.

    MODEL is a state of the task's model in safetensors, or what `torch.save(model.state_dict(), MODEL)` writes.
    """
    from fluvial.reading.state_files import read_state

    state = read_state(model)
    _, one = _open(invocation, task_name=task_name, region=region, device_id=device_id, key=key, codec=codec)
    with one:
        with invocation.output.waiting("an announced model (is a merger running?)"):
            base = one.fetch(timeout_s=timeout_s) if base_version is None else one.fetch_version(base_version)
        contribution, notes = one.contribution_of_state(base, state, num_examples=num_examples, loss=loss)
        for note in notes:
            invocation.output.say(note)
        receipt, verdict = publish_one(invocation, one, base, contribution, timeout_s)
    problem = refusal_of(one, receipt, verdict)
    if problem is not None:
        raise problem
    invocation.output.document(verdict_document(one, base, receipt, verdict))
    invocation.output.print(verdict_line(base, receipt, verdict))


@device.command("run")
@task_option
@region_option
@id_option
@key_option
@timeout_option
@codec_option
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How many versions to contribute to.",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Train on part I of N of the task's data. Default: on the natural part of this id, or on all.",
)
@data_option
@click.option(
    "--heartbeat",
    "heartbeat_s",
    type=NOT_NEGATIVE,
    default=0.0,
    show_default="never",
    help="Say every so many seconds that it is there, to a task that was created with --heartbeats.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@set_option
@traceback_option
@json_option
@pass_invocation
def run_device(
    invocation: Invocation,
    *,
    task_name: str | None,
    region: str,
    device_id: str,
    key: Path | str | None,
    timeout_s: float,
    codec: str,
    rounds: int,
    shard: str | None,
    data: str,
    heartbeat_s: float,
    seed: int,
    given: dict[str, Any],
) -> int:
    """Fetch, train, publish and show the verdict, once for each new version.

    A round whose training fails is counted, and the device tries again at the next version. Where the task file's
    `can_run(data)` says no, the device waits and asks again. Exit 1 if an update was refused or a round failed.
    """
    from backends.tasks import private_folder
    from producers.sdk.eligibility import Eligibility
    from producers.sdk.private_layers import PrivateLayers

    chosen = check_choice(shard, data)
    file, one = _open(
        invocation,
        task_name=task_name,
        region=region,
        device_id=device_id,
        key=key,
        codec=codec,
        seed=seed,
        heartbeat_s=heartbeat_s,
    )
    with one:
        task, examples = load_program_and_data(invocation, file, one, chosen, data=data, given=given)
        may_run = task.can_run
        if may_run is not None:
            one.eligibility = Eligibility(lambda: may_run(examples), f"device {one.device_id}")
        own = PrivateLayers(private_folder(invocation.home, file.task), one.author.genesis.sha256)
        refused, failed = run_rounds(invocation, one, task, examples, own, rounds, timeout_s)
    invocation.output.line(
        {
            "rounds": rounds,
            "refused": refused,
            "failed_rounds": failed.document(),
            "eligibility": one.eligibility.document(),
        },
        terminal=True,
    )
    for reason, times in one.eligibility.reasons.items():
        invocation.output.print(f"took no part {times} times: {reason}")
    for cause in failed.causes:
        invocation.output.print(f"failed: {cause.line()}")
    return 1 if refused or failed.total else 0


def _open(
    invocation: Invocation,
    *,
    task_name: str | None,
    region: str,
    device_id: str,
    key: Path | str | None,
    codec: str = DEFAULT_CODEC,
    seed: int = 0,
    heartbeat_s: float = 0.0,
) -> tuple[TaskFile, Device]:
    from backends.keys import signer_path
    from backends.tasks import keys_folder, read_task_file
    from producers.sdk.device import Device
    from schemas.certificates import Role

    settings = invocation.settings("device")
    file = read_task_file(invocation.home, task_name)
    check_known_region(file, region, edges=True)
    path = key or signer_path(keys_folder(invocation.home, file.task), region, Role.DEVICE, device_id)
    if isinstance(path, Path) and not path.is_file():
        raise UsageProblem(
            "FLV-2302",
            f"device {device_id} of region {region} has no key file",
            where=str(path),
            hint=f"issue one with `fluvial ca issue --task {file.task} --region {region} --role device {device_id}`",
        )
    one = Device.open(
        settings,
        task=file.task,
        region=region,
        key=path,
        genesis_sha256=file.genesis_sha256,
        codec=codec,
        seed=seed,
        heartbeat_s=heartbeat_s,
    )
    if one.device_id != device_id:
        one.close()
        raise UsageProblem(
            "FLV-2506",
            f"the certificate is {one.device_id}'s, not {device_id}'s",
            where=str(path),
            hint="name the right `--key`",
        )
    return file, one
