"""``fluvial simulate --arrivals``: a real run's arrivals, trained and merged anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from aggregation.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluvial.simulating.arrivals import Arrivals
    from fluvial.simulating.replaying import Replayed
    from fluvial.terminal.invocation import Invocation

_Function = TypeVar("_Function", bound="Callable[..., Any] | click.Command")
TAKEN: Final = frozenset(
    {
        "task_file",
        "arrivals",
        "save_arrivals",
        "versions",
        "processes",
        "traceback",
        "json_output",
        "no_check",
    }
)
"""Parameters of ``fluvial simulate`` that mean something here."""
_HASH_SHOWN: Final = 16


def arrivals_options(function: _Function) -> _Function:
    """Add them."""
    function = click.option(
        "--save-arrivals",
        type=click.Path(path_type=Path, dir_okay=False),
        help="With --arrivals TASK: write the arrivals to this file, too, to be played where the stack is not.",
    )(function)
    return click.option(
        "--arrivals",
        metavar="TASK|FILE",
        help="Train and merge a real run anew, in the order in which its updates came: of a task on the stack, or of a "
        "file that --save-arrivals wrote. Every version has to have the same model, bit for bit.",
    )(function)


def play_arrivals(
    invocation: Invocation,
    reference: str | None,
    name: str,
    *,
    save: Path | None,
    versions: int | None,
    processes: int,
) -> int:
    """Play them, and say of every version that it came to the same. Raises what ``replay`` does."""
    from fluvial.simulating.replaying import replay
    from fluvial.simulating.training import Trainers
    from learning.task import load_task

    _check_options(reference)
    output = invocation.output
    arrivals = _arrivals_of(invocation, name, save)
    task = load_task(str(reference), arrivals.settings)
    output.say(
        f"training {arrivals.updates} updates of {arrivals.devices} devices anew, in the order in which they came"
    )

    def told(one: Replayed) -> None:
        output.say(
            f"version {one.version}  {one.updates} updates  model {one.model_sha256[:_HASH_SHOWN]}  the same"
        )

    with Trainers(task, arrivals.settings, processes) as trainers:
        made = replay(arrivals, task, trainers, versions=versions, on_version=told)
    genesis = arrivals.genesis_document()
    output.document(
        {
            "task": genesis.task,
            "genesis_sha256": genesis.sha256,
            "policy_sha256": genesis.first_policy.sha256,
            "identical": True,
            "updates": made[-1].updates,
            "versions": [{"version": one.version, "model_sha256": one.model_sha256} for one in made],
        }
    )
    output.print(
        f"{len(made)} versions of {genesis.task}, {made[-1].updates} updates trained anew: the same models, "
        "bit for bit",
        style="bold green",
    )
    return 0


def _check_options(reference: str | None) -> None:
    context = click.get_current_context()
    typed = [
        option.opts[0]
        for option in context.command.params
        if context.get_parameter_source(str(option.name)) is click.core.ParameterSource.COMMANDLINE
        and option.name not in TAKEN
    ]
    if typed:
        raise UsageProblem(
            "FLV-6450",
            f"the recorded run says who came when, and how it trained: {' and '.join(typed)} could do nothing",
            hint=f"leave {' and '.join(typed)} out, or `--arrivals`",
        )
    if reference is None:
        raise UsageProblem(
            "FLV-6450",
            "expected the task file that the run trained, got none",
            hint="`fluvial simulate mine.py --arrivals mine`",
        )


def _arrivals_of(invocation: Invocation, name: str, save: Path | None) -> Arrivals:
    from fluvial.simulating.arrivals import read_arrivals, write_arrivals

    if Path(name).is_file():
        return read_arrivals(Path(name))
    arrivals = _of_task(invocation, name)
    if save is not None:
        write_arrivals(save, arrivals)
        invocation.output.say(f"the arrivals are in {save}")
    return arrivals


def _of_task(invocation: Invocation, name: str) -> Arrivals:
    from backends.store.task_store import TaskStore
    from backends.tasks import read_task_file
    from fluvial.proof.audit.sources import sources_of
    from fluvial.simulating.arrivals import recorded_arrivals, refused

    settings = invocation.settings()
    file = read_task_file(settings.home, name)
    if file.devices is None or file.alpha is None:
        raise refused(f"nothing on this machine says how {name} dealt out its data: `fluvial run` notes it")
    sources = sources_of(settings)
    store = TaskStore(sources.store, file.task)
    with sources.open_reader("arrivals") as reader:
        return recorded_arrivals(
            store.genesis(file.genesis_sha256),
            store,
            reader,
            seed=file.seed,
            devices=file.devices,
            alpha=file.alpha,
            settings=file.settings,
        )
