"""The table as one HTML file that needs nothing but a browser: a heat map, and every figure behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import jinja2

from fluvial.arena.attacks import ATTACKS, NO_ATTACK
from fluvial.arena.defences import contender
from fluvial.arena.table import SHOWN, SUMMARY_COLUMNS, Table, summary, title_of
from fluvial.arena.twins import TWINS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluvial.arena.grid import Plan

HEAT: Final = (2.0, 5.0, 10.0, 20.0, 40.0)
"""Points that are missing, or hundredths of a backdoor's success, from which on the next colour begins."""
MARKS: Final = ("●", "◕", "◑", "◔", "○", "✗")
"""So that colour is not all that says it."""


def heat_of(missing: float, success: float | None) -> int:
    """0 (nothing is missing) to 5; a backdoor's success in hundredths counts as points."""
    worst = max(missing, 100.0 * (success or 0.0))
    return sum(worst > bound for bound in HEAT)


def render(plan: Plan, found: Sequence[Table], code_sha256: str) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fluvial.arena"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("arena.html.j2").render(
        plan=plan,
        code_sha256=code_sha256,
        legend=_legend(),
        tables=[_table(table) for table in found],
        shown=SHOWN,
        summary_columns=SUMMARY_COLUMNS,
        sources=_sources(plan),
    )


def _legend() -> list[tuple[str, str]]:
    words = [f"up to {bound:g} points" for bound in HEAT] + ["more"]
    return list(zip(MARKS, words, strict=True))


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": title_of(table.setting),
        "summary": summary(table),
        "heat": [
            {"attack": attack, "cells": [_cell(table, attack, defence) for defence in table.defences]}
            for attack in table.attacks
        ],
        "all": [
            [attack, defence, *table.figures(attack, defence).values(), _reasons(table, attack, defence)]
            for attack in table.attacks
            for defence in table.defences
        ],
    }


def _cell(table: Table, attack: str, defence: str) -> dict[str, Any]:
    one = table.cells[attack, defence].measures
    heat = heat_of(100.0 * (table.best - one.accuracy), one.success)
    return {**table.figures(attack, defence), "heat": heat, "mark": MARKS[heat]}


def _reasons(table: Table, attack: str, defence: str) -> str:
    refused = table.cells[attack, defence].measures.refused
    return ", ".join(f"{reason} {100 * share:.1f} %" for reason, share in refused.items())


def _sources(plan: Plan) -> list[tuple[str, str, str]]:
    attacks = [
        (name, "attack, knows the rules" if ATTACKS[name].knows_rules else "attack", ATTACKS[name].source)
        for name in plan.rows
        if name != NO_ATTACK
    ]
    defences = [
        (
            name,
            "defence, the real fold" if contender(name).real else "defence, a naive twin",
            TWINS[name].source if name in TWINS else "",
        )
        for name in plan.defences
    ]
    return attacks + defences
