"""``fluvial arena``: every attack against every defence, and what each did to the model and to the honest."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from aggregation.errors import EnvironmentProblem, UsageProblem
from fluvial.terminal.invocation import Invocation, json_option, pass_invocation

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluvial.arena.grid import Plan
    from fluvial.terminal.output import Output

QUICK_ATTACKS: Final = ("sign-flip", "inner-product", "backdoor-patch", "inside-the-bound")
ALL: Final = "all"
QUICK_VERSIONS: Final = 12
TOLD_EVERY_S: Final = 5.0
SEEDS_MAX: Final = 100
ROOT_EXAMPLES_MAX: Final = 500


@click.command()
@click.option(
    "--task", "tasks", default="digits", show_default=True, help="digits, fashion, or both with a comma."
)
@click.option("--attacks", default="all", show_default=True, help="Names with commas, or all.")
@click.option(
    "--defences",
    default="real",
    show_default=True,
    help="Names with commas; real: those of the fold, twins: the papers', all.",
)
@click.option(
    "--malicious", default="0.2", show_default=True, help="Shares of malicious devices, with commas."
)
@click.option(
    "--dirichlet",
    default="0.5",
    show_default=True,
    help="Concentrations of the data split, with commas: the smaller, the more different devices are.",
)
@click.option(
    "--seeds", type=click.IntRange(1, SEEDS_MAX), default=1, show_default=True, help="How many seeds."
)
@click.option(
    "--root-examples",
    type=click.IntRange(1, ROOT_EXAMPLES_MAX),
    default=100,
    show_default=True,
    help="Examples of the guardian's root set.",
)
@click.option(
    "--root-classes",
    type=click.IntRange(1, 10),
    default=10,
    show_default=True,
    help="Classes that the root set has examples of.",
)
@click.option("--quick", is_flag=True, help=f"Four attacks and {QUICK_VERSIONS} versions: a minute.")
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with a heat map here."
)
@click.option("--fresh", is_flag=True, help="Play all of it, also what was played before.")
@click.option("--list", "list_only", is_flag=True, help="Only list attacks and defences, with their sources.")
@json_option
@pass_invocation
def arena(
    invocation: Invocation,
    /,
    *,
    tasks: str,
    attacks: str,
    defences: str,
    malicious: str,
    dirichlet: str,
    seeds: int,
    root_examples: int,
    root_classes: int,
    quick: bool,
    report: Path | None,
    fresh: bool,
    list_only: bool,
) -> int:
    """Let attacks meet defences over the same rounds of devices, and print what became of the model.

    Defences of the policy run in the real fold and merge, in this process, without signatures; those of the papers as
    plain twins. A play is a function of code, policy and seed: what was played before is taken from the home's cache.
    """
    from fluvial.arena.attacks import ATTACKS
    from fluvial.arena.grid import Plan
    from fluvial.arena.world import Root

    if list_only:
        _list(invocation.output)
        return 0
    plan = Plan(
        tasks=_words(tasks),
        alphas=_numbers("--dirichlet", dirichlet, 0.0, float("inf")),
        shares=_numbers("--malicious", malicious, 0.0, 1.0),
        attacks=tuple(ATTACKS) if attacks == ALL else _words(attacks),
        defences=_defences(defences),
        seeds=seeds,
        root=Root(root_examples, root_classes),
    )
    if quick:
        plan = _quick(plan, chosen=attacks != ALL)
    plan.check()
    _play(plan, invocation, None if fresh else invocation.home / "cache" / "arena", report)
    return 0


def _quick(plan: Plan, *, chosen: bool) -> Plan:
    from dataclasses import replace

    return replace(plan, attacks=plan.attacks if chosen else QUICK_ATTACKS, versions=QUICK_VERSIONS)


def _play(plan: Plan, invocation: Invocation, cache: Path | None, report: Path | None) -> None:
    from fluvial.arena.grid import code_sha256, run
    from fluvial.arena.page import render
    from fluvial.arena.table import SUMMARY_COLUMNS, document, rows, summary, tables, title_of

    output = invocation.output
    output.say(
        f"{plan.plays} plays: {len(plan.rows)} attacks, {len(plan.defences)} defences, {plan.seeds} seeds"
    )
    found = tables(plan, run(plan, cache, _progress(plan, output)))
    for table in found:
        output.table(["attack", *table.defences], rows(table), title=title_of(table.setting))
        output.table(SUMMARY_COLUMNS, summary(table), title="worst of each kind")
    if not output.json:
        output.print(
            "A cell: accuracy, (how often a backdoor worked), -share of honest updates refused or hardly counted."
        )
    if report is not None:
        _write(report, render(plan, found, code_sha256()))
        output.say(f"the page is {report}")
    if output.json:
        output.document(document(plan, found, code_sha256()))


def _progress(plan: Plan, output: Output) -> Callable[[int, int], None]:
    begun = said = time.monotonic()

    def told(done: int, cached: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= TOLD_EVERY_S or done == plan.plays:
            said, played = now, done - cached
            left = (now - begun) / played * (plan.plays - done) if played else 0.0
            output.say(f"{done} of {plan.plays} plays, {cached} known from before, about {left:.0f} s left")

    return told


def _write(report: Path, page: str) -> None:
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(page, encoding="utf-8")
    except OSError as error:
        raise EnvironmentProblem(
            "FLV-6308",
            f"the report cannot be written: {error.strerror or error}",
            where=str(report),
            hint="choose another file with `--report FILE`",
        ) from error


def _list(output: Output) -> None:
    from fluvial.arena.attacks import ATTACKS
    from fluvial.arena.defences import POLICIES
    from fluvial.arena.twins import TWINS

    listed = [
        *(("attack", name, one.source) for name, one in ATTACKS.items()),
        *(("defence of the fold", name, "docs/policy.md") for name in POLICIES),
        *(("defence, a twin", name, one.source) for name, one in TWINS.items()),
    ]
    if output.json:
        known = [{"kind": kind, "name": name, "source": source} for kind, name, source in listed]
        output.document({"known": known})
    output.table(["kind", "name", "source"], listed)


def _defences(text: str) -> tuple[str, ...]:
    from fluvial.arena.defences import POLICIES
    from fluvial.arena.twins import TWINS

    groups = {"real": tuple(POLICIES), "twins": tuple(TWINS), "all": (*POLICIES, *TWINS)}
    chosen: dict[str, None] = {}
    for word in _words(text):
        chosen |= dict.fromkeys(groups.get(word, (word,)))
    return tuple(chosen)


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _numbers(option: str, text: str, low: float, high: float) -> tuple[float, ...]:
    try:
        numbers = tuple(dict.fromkeys(float(word) for word in _words(text)))
    except ValueError:
        numbers = ()
    if not numbers or not all(low < number < high for number in numbers):
        between = f"above {low:g}" + ("" if high == float("inf") else f" and below {high:g}")
        raise UsageProblem(
            "FLV-6440",
            f"{option}: expected numbers {between} with commas between, got {text!r}",
            hint="such as `fluvial arena --malicious 0.2,0.3 --dirichlet 0.5,0.1`",
        )
    return numbers
