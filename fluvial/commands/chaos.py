"""``fluvial chaos``: real faults on a real stack of its own, and the proof that nothing was lost or counted twice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from aggregation.defences import DEFENCES
from aggregation.errors import UsageProblem
from fluvial.commands.policy_option import PolicyFile
from fluvial.proof.chaos.plan import PLAIN, SECURITIES, ChaosPlan, Security
from fluvial.terminal.invocation import Invocation, pass_invocation
from fluvial.terminal.numbers import Number

if TYPE_CHECKING:
    from fluvial.proof.chaos.schedule import Kind

DEVICES: Final = 24
REGIONS: Final = "eu,us"
SECONDS: Final = 60.0
WORKERS: Final = 2
KINDS: Final = "kill,pause,network,disk"


@click.command()
@click.option(
    "--seconds",
    type=Number(1, 86_400),
    default=SECONDS,
    show_default=True,
    help="How long faults are injected. Start, healing and check take about two minutes more.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of faults and devices.")
@click.option(
    "--faults",
    default=KINDS,
    show_default=True,
    help="Kinds, of kill, pause, network, disk and corrupt.",
)
@click.option(
    "--devices", type=click.IntRange(1, 10_000), default=DEVICES, show_default=True, help="How many devices."
)
@click.option(
    "--regions", default=REGIONS, show_default=True, help="Regions; eu:4 gives one four partitions, not two."
)
@click.option(
    "--workers", type=click.IntRange(1, 32), default=WORKERS, show_default=True, help="Workers a region."
)
@click.option(
    "--attackers",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="So many of the devices attack.",
)
@click.option(
    "--policy",
    type=PolicyFile(),
    metavar="FILE|NAME",
    help="Policy: a TOML file (docs/policy.md), or the name of one that ships. "
    "One that is guided has guardians started, and hit.",
)
@click.option(
    "--defence",
    type=click.Choice(list(DEFENCES)),
    help="The kind of the policy's defence, where --policy says none. Default: the policy's own.",
)
@click.option(
    "--security",
    type=click.Choice(SECURITIES),
    default=PLAIN,
    show_default=True,
    help="How processes get into Kafka: tls by certificates of roles, scram by users' passwords; both under ACLs.",
)
@click.option(
    "--on-cluster",
    is_flag=True,
    help="On the cluster of the settings (FLUVIAL_BOOTSTRAP_SERVERS and so on) instead of one of its own: in a task of "
    "its own, which is removed at the end, and with faults of its own processes only.",
)
@click.option(
    "--json",
    "json_file",
    metavar="[FILE]",
    is_flag=False,
    flag_value="-",
    help="Write the result as JSON; to stdout without FILE or with -.",
)
@click.option("--keep", is_flag=True, help="Keep its home (logs, data, keys) also after a run that is well.")
@pass_invocation
def chaos(
    invocation: Invocation,
    /,
    *,
    seconds: float,
    seed: int,
    faults: str,
    devices: int,
    regions: str,
    workers: int,
    attackers: int,
    policy: Path | None,
    defence: str | None,
    security: Security,
    on_cluster: bool,
    json_file: str | None,
    keep: bool,
) -> int:
    """Break a stack of its own while devices publish; then check offline that nothing was lost or counted twice.

    It has a home of its own below the usual one, fresh and removed at the end: other stacks and tasks are not touched,
    and on a cluster that is there (--on-cluster) no other task.
    Exit code 1 when a promise was broken; its home is then kept until the next run. Ctrl-C stops and removes
    everything but the history.
    """
    from fluvial.local.create import parse_regions
    from fluvial.local.policies import read_policy_file
    from fluvial.proof.chaos.result import STDOUT, summarize, write_json
    from fluvial.proof.chaos.run import run_chaos
    from fluvial.session.summary import check_json_target
    from producers.fleet.population import FleetConfig

    output = invocation.output
    output.json = json_file == STDOUT
    check_json_target(json_file)
    if on_cluster:
        _check_cluster(invocation, faults, security)
    FleetConfig(devices=devices, attackers=attackers, seed=seed)  # refused now, not when the stack is up
    plan = ChaosPlan(
        seconds=seconds,
        seed=seed,
        kinds=parse_kinds(faults),
        devices=devices,
        regions=parse_regions(regions),
        workers=workers,
        attackers=attackers,
        policy_text=read_policy_file(policy),
        defence=defence or "",
        security=security,
        cluster=invocation.settings if on_cluster else None,
        keep=keep,
    )
    result = run_chaos(plan, invocation.home, output)
    if json_file is not None:
        write_json(json_file, result, output)
    summarize(result, output)
    problem = result.problem()
    if problem is not None:
        output.json = False  # the one document is written; the finding goes to stderr
        raise problem
    return 0


def _check_cluster(invocation: Invocation, faults: str, security: Security) -> None:
    """UsageProblem FLV-6001: what would have no effect there; FLV-1001: no cluster is known."""
    from fluvial.proof.chaos.ground import OF_PROCESSES

    if security != PLAIN:
        raise UsageProblem(
            "FLV-6001",
            "--security is of a cluster of the run's own: how one gets into the one of --on-cluster is in the settings",
            hint="`fluvial config show --sources`",
        )
    if not set(parse_kinds(faults)) & set(OF_PROCESSES):
        raise UsageProblem(
            "FLV-6001",
            f"--on-cluster hits nothing but processes: expected faults of {', '.join(OF_PROCESSES)}, got {faults}",
            hint="`fluvial chaos --on-cluster --faults kill,pause`",
        )
    invocation.settings("admin")


def parse_kinds(text: str) -> tuple[Kind, ...]:
    """The kinds in a list with commas, each once. UsageProblem FLV-6407."""
    from fluvial.proof.chaos.schedule import KINDS as ALL

    words = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in words if word not in ALL]
    if unknown or not words:
        raise UsageProblem(
            "FLV-6407",
            f"--faults: expected kinds of {', '.join(ALL)}, got {', '.join(map(repr, unknown)) or 'none'}",
            hint=f"the default is `fluvial chaos --faults {KINDS}`",
        )
    return tuple(kind for kind in ALL if kind in words)
