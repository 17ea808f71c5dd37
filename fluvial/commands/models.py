"""``fluvial model``: a version's model as a file."""

from __future__ import annotations

from pathlib import Path

import click

from aggregation.errors import EnvironmentProblem
from fluvial.commands.tasks import task_option
from fluvial.terminal.invocation import Invocation, json_option, pass_invocation


@click.group()
def model() -> None:
    """Get a version's model as a file, or export it for other programs."""


@model.command()
@task_option
@click.option("--version", type=click.IntRange(0), help="Default: the newest.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Default: TASK-VERSION.safetensors"
)
@json_option
@pass_invocation
def get(invocation: Invocation, *, task_name: str | None, version: int | None, out: Path | None) -> None:
    """Write all of a version's model to a safetensors file, which torch loads with a strict `load_state_dict`."""
    from backends.tasks import read_task_file
    from fluvial.reading.models import find_version
    from schemas.objects import sha256_hex

    name = task_name or read_task_file(invocation.home, None).task
    found = find_version(name, version, settings=invocation.settings())
    data, base = found.file(), found.base
    path = out or Path(f"{name}-{base.version}.safetensors")
    try:
        part = path.with_name(f"{path.name}.part")
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise EnvironmentProblem(
            "FLV-4113",
            f"{path} cannot be written: {error.strerror or error}",
            hint="name another file with `--out`",
        ) from error
    invocation.output.document(
        {
            "task": name,
            "version": base.version,
            "sha256": base.sha256,
            "path": str(path),
            "file_sha256": sha256_hex(data),
            "bytes": len(data),
            "parameters": base.parameters.size,
            "tied": found.genesis.model.tied,
            "frozen": sorted(found.frozen),
            "dtypes": {entry.name: entry.dtype for entry in found.genesis.layout},
        }
    )
    invocation.output.print(f"version {base.version} ({base.sha256[:16]}) is in {path}")
    invocation.output.print(f'load it: model.load_state_dict(safetensors.torch.load_file("{path}"))')
    invocation.output.print(
        f'or, as the task file makes it: fluvial.load_model("{name}", {base.version}).module()'
    )


@model.command()
@task_option
@click.option("--version", type=click.IntRange(0), help="Default: the newest.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["safetensors", "torchscript", "onnx", "mlflow"]),
    default="safetensors",
    show_default=True,
    help="For which programs. ONNX needs fluvial[onnx], MLflow fluvial[tracking] and mlflow itself.",
)
@click.option(
    "--input-shape",
    metavar="SIZES",
    callback=lambda _context, _parameter, text: _shape(text),
    help="Of one input, such as 1,28,28, for TorchScript and ONNX. Default: as in the task's data.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Default: TASK-VERSION and the format's ending.")
@json_option
@pass_invocation
def export(
    invocation: Invocation,
    *,
    task_name: str | None,
    version: int | None,
    form: str,
    input_shape: tuple[int, ...],
    out: Path | None,
) -> None:
    """Write a version's model for other programs, with its task, version and hash in the file."""
    from backends.tasks import read_task_file
    from fluvial.export.models import SUFFIXES, Exporting
    from fluvial.reading.models import find_version, model_of

    name = task_name or read_task_file(invocation.home, None).task
    found = find_version(name, version, settings=invocation.settings())
    exporting = Exporting(found, model_of(found), input_shape)
    path = out or Path(f"{name}-{found.base.version}{SUFFIXES[form]}")
    exporting.write(form, path)
    told = {"task": name, "version": found.base.version, "format": form, "path": str(path)}
    invocation.output.document({**told, "metadata": exporting.metadata})
    invocation.output.print(f"version {found.base.version} ({found.base.sha256[:16]}) is in {path}")


def _shape(text: str | None) -> tuple[int, ...]:
    """``1,28,28`` as numbers; nothing for no text."""
    if not text:
        return ()
    numbers = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in numbers):
        raise click.BadParameter(f"{text!r}: expected whole numbers from 1, such as 1,28,28")
    return tuple(map(int, numbers))
