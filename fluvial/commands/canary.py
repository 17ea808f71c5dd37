"""``fluvial canary``: does a region still judge updates, rightly and in time?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import click

from aggregation.errors import Finding, FluvialError, TimeoutProblem, UsageProblem
from fluvial.commands.tasks import check_known_region, region_option, task_option
from fluvial.processes.identity import ProcessIdentity
from fluvial.processes.metrics_server import MetricsOptions, metrics_options
from fluvial.processes.observing import observing
from fluvial.processes.signals import stop_on_signals
from fluvial.terminal.invocation import Invocation, json_option, pass_invocation
from fluvial.terminal.numbers import POSITIVE, Number
from producers.canary import EVERY_S, LATE, OBJECTIVE_S, WRONG_VERDICT

if TYPE_CHECKING:
    from collections.abc import Callable

    from backends.settings import Settings
    from backends.tasks import TaskFile
    from fluvial.terminal.output import Output
    from producers.canary import Canary, Ping
    from producers.sdk.updates import Author

    ProblemOf = Callable[[Ping], FluvialError]

_EVERY_S_MIN: Final = 0.05


@click.command()
@task_option
@region_option
@click.option(
    "--every",
    "every_s",
    type=Number(_EVERY_S_MIN),
    default=EVERY_S,
    show_default=True,
    help="Seconds from one update to the next.",
)
@click.option(
    "--objective",
    "objective_s",
    type=POSITIVE,
    default=OBJECTIVE_S,
    show_default=True,
    help="Seconds within which each verdict is expected.",
)
@click.option("--once", is_flag=True, help="One update: exit 0 if all is well, 1 or 3 if not. For scripts.")
@metrics_options
@json_option
@pass_invocation
def canary(
    invocation: Invocation,
    *,
    task_name: str | None,
    region: str,
    every_s: float,
    objective_s: float,
    once: bool,
    metrics_port: int,
    no_metrics: bool,
) -> None:
    """Publish updates whose verdict is known, and expect it in time. Ctrl-C or SIGTERM ends it, with exit code 0.

    The updates are a real device's, on a version that will never exist: refused as `future_base`, they change nothing
    in the model.
    """
    from backends.kafka.admin import require_broker
    from backends.kafka.reading import LogReader
    from backends.kafka.writing import LogWriter
    from backends.tasks import read_task_file
    from producers.canary import Canary
    from stream_apps import running

    running.configure_logging()
    settings = invocation.settings("operator")
    file = read_task_file(invocation.home, task_name)
    check_known_region(file, region)
    if once:
        require_broker(settings)
    author = _author(settings, file, region, patient=not once)
    identity = ProcessIdentity(file.task, "canary", author.device_id, region, author.signer.certificate)
    options, say = MetricsOptions(metrics_port, not (no_metrics or once)), invocation.output.say
    with (
        observing(settings, identity, options, say=say, warn=say) as observer,
        LogReader(settings, f"fluvial-{author.device_id}") as reader,
    ):
        writer = LogWriter(settings, f"fluvial-{author.device_id}", observer=observer)
        one = Canary(author, writer, reader, every_s=every_s, objective_s=objective_s, observer=observer)
        stop_on_signals(one.stop, observer.ending)
        problem_of = partial(_problem, settings, file.task)
        if once:
            _once(invocation.output, one, problem_of)
        else:
            _go_on(invocation.output, one, every_s, objective_s, problem_of)


def _author(settings: Settings, file: TaskFile, region: str, *, patient: bool) -> Author:
    """The canary with its key; the key is issued where the region's CA is. FLV-2302 where it is not."""
    from backends.keys import Keeping, authority_path, issue, load_key_pair, signer_path
    from backends.outages import retry_through_outage
    from backends.store.factory import open_object_store
    from backends.store.task_store import TaskStore
    from backends.tasks import keys_folder
    from producers.sdk.updates import Author
    from producers.sdk.whose_key import holder_of_key
    from schemas.canaries import canary_name
    from schemas.certificates import Role

    name, folder = canary_name(region), keys_folder(settings.home, file.task)
    path = signer_path(folder, region, Role.DEVICE, name)
    if not path.is_file() and not authority_path(folder, region).is_file():
        raise UsageProblem(
            "FLV-2302",
            f"the canary of region {region} has no key file, and the region's CA is not on this machine",
            where=str(path),
            hint=f"issue one where the CA is with `fluvial ca issue --task {file.task} --region {region} "
            f"--role device {name}`, and copy it to that place",
        )
    issue(folder, region, Role.DEVICE, name, Keeping(settings.key))
    store = TaskStore(open_object_store(settings.store), file.task)

    def read() -> Author:
        genesis, key_pair = store.genesis(file.genesis_sha256), load_key_pair(path, settings.key)
        holder = holder_of_key(key_pair, genesis, region, path)
        return Author(genesis, region, holder.name, key_pair.of_task(genesis.domain), 0, holder.cohort)

    return retry_through_outage(f"read the task {file.task}", read) if patient else read()


def _once(output: Output, one: Canary, problem_of: ProblemOf) -> None:
    for ping in one.run(once=True):
        if ping.reason:
            raise problem_of(ping)
        output.document(ping.document())
        output.print(_line(ping))


def _go_on(output: Output, one: Canary, every_s: float, objective_s: float, problem_of: ProblemOf) -> None:
    output.say(
        f"publishing to {one.region}[{one.partition}] every {every_s:g} s, "
        f"a verdict is expected within {objective_s:g} s; Ctrl-C ends"
    )
    for ping in one.run():
        output.line(ping.document())
        if ping.reason:
            output.say(str(problem_of(ping)), style="bold red")
        else:
            output.print(_line(ping))
    tally = one.tally.document()
    output.line(tally, terminal=True)
    failed = ", ".join(f"{count} {reason}" for reason, count in one.tally.failed.items() if count)
    output.say(f"{one.tally.published} updates, {one.tally.judged} verdicts, {failed or 'no failure'}")


def _line(ping: Ping) -> str:
    return f"{ping.place} {ping.outcome} as expected, after {ping.seconds:.3f} s"


def _nobody_works(settings: Settings, task: str, region: str) -> bool:
    """Whether Kafka says that no process is in the region's group; False where it says nothing."""
    from backends.kafka.consumer_groups import describe_groups

    try:
        (group,) = describe_groups(settings, [f"fluvial-{task}-{region}"])
    except FluvialError:
        return False
    return not group.members


def _problem(settings: Settings, task: str, ping: Ping) -> FluvialError:
    where = f"canary of {ping.region}, {ping.place}"
    if ping.reason == WRONG_VERDICT:
        return Finding(
            "FLV-7070",
            f"a wrong verdict: {ping.detail}",
            where=where,
            hint=f"see why with `fluvial inspect {ping.region} {ping.partition} {ping.offset}`, then `fluvial audit`",
        )
    if ping.reason == LATE and not ping.outcome and _nobody_works(settings, task, ping.region):
        return TimeoutProblem(
            "FLV-7071",
            f"no worker of region {ping.region} runs, so the update got {ping.detail}",
            where=where,
            hint=f"start one with `fluvial worker --task {task} --region {ping.region}`",
        )
    return TimeoutProblem(
        "FLV-7071",
        f"{ping.reason}: {ping.detail}",
        where=where,
        hint="see what runs and what lags with `fluvial status`, and whether the broker answers with `fluvial doctor`",
    )
