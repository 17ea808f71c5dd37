"""The table attack × defence, as rows for a terminal, as a document, and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fluvial.arena.attacks import ATTACKS, NO_ATTACK
from fluvial.arena.defences import contender
from fluvial.arena.twins import TWINS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluvial.arena.grid import Cell, Plan, Setting

SHOWN: Final = ("accuracy", "spread", "lost", "success", "refused", "worst", "malicious", "cpu", "state")
"""Columns of a cell, as ``figures`` gives them."""


@dataclass(frozen=True, slots=True)
class Table:
    """The cells of one setting by (attack, defence)."""

    setting: Setting
    attacks: tuple[str, ...]
    defences: tuple[str, ...]
    cells: dict[tuple[str, str], Cell]

    def clean(self, defence: str) -> float:
        """The defence's accuracy with no attacker."""
        return self.cells[NO_ATTACK, defence].measures.accuracy

    @property
    def best(self) -> float:
        """The best accuracy that any of the defences has with no attacker."""
        return max(map(self.clean, self.defences))

    def lost(self, attack: str, defence: str) -> float:
        """Points of accuracy that the attack takes from the defence's own clean run; below 0: none."""
        return 100.0 * (self.clean(defence) - self.cells[attack, defence].measures.accuracy)

    def figures(self, attack: str, defence: str) -> dict[str, str]:
        """A cell's figures as they are shown, in the order of ``SHOWN``."""
        one = self.cells[attack, defence].measures
        return {
            "accuracy": f"{one.accuracy:.3f}",
            "spread": f"{one.spread:.3f}",
            "lost": "" if attack == NO_ATTACK else f"{self.lost(attack, defence):.1f}",
            "success": "" if one.success is None else f"{100.0 * one.success:.0f} %",
            "refused": f"{100.0 * one.honest_refused:.1f} %",
            "worst": f"{100.0 * one.worst_device:.0f} %",
            "malicious": f"{100.0 * one.malicious_weight:.0f} %",
            "cpu": f"{one.cpu_us:.0f} µs",
            "state": f"{one.state_bytes / 1000:.0f} kB",
        }


def tables(plan: Plan, cells: Sequence[Cell]) -> list[Table]:
    """One table a setting, in the plan's order."""
    return [
        Table(
            setting,
            plan.rows,
            plan.defences,
            {(cell.attack, cell.defence): cell for cell in cells if cell.setting == setting},
        )
        for setting in plan.settings
    ]


def title_of(setting: Setting) -> str:
    """A setting in words."""
    return f"{setting.task}, Dirichlet {setting.alpha:g}, {100 * setting.malicious:.0f} % of the devices malicious"


def document(plan: Plan, found: Sequence[Table], code_sha256: str) -> dict[str, Any]:
    """All of it as one JSON document."""
    return {
        "plan": msgspec.to_builtins(plan),
        "code_sha256": code_sha256,
        "attacks": {
            name: {
                "source": ATTACKS[name].source,
                "knows_rules": ATTACKS[name].knows_rules,
                "floods": ATTACKS[name].floods,
            }
            for name in plan.rows
            if name != NO_ATTACK
        },
        "defences": {
            name: {
                "real": contender(name).real,
                "source": TWINS[name].source if name in TWINS else "Fluvial's own fold and merge",
            }
            for name in plan.defences
        },
        "tables": [
            {
                "task": table.setting.task,
                "dirichlet": table.setting.alpha,
                "malicious": table.setting.malicious,
                "cells": [
                    {
                        "attack": attack,
                        "defence": defence,
                        "points_lost": None if attack == NO_ATTACK else table.lost(attack, defence),
                        "honest_refused": table.cells[attack, defence].measures.honest_refused,
                        **msgspec.to_builtins(table.cells[attack, defence].measures),
                    }
                    for attack in table.attacks
                    for defence in table.defences
                ],
            }
            for table in found
        ],
    }


def rows(table: Table) -> list[list[str]]:
    """For a terminal: a row an attack, a column a defence: accuracy, success of a backdoor, honest refused."""
    return [
        [attack, *(_short(table, attack, defence) for defence in table.defences)] for attack in table.attacks
    ]


def _short(table: Table, attack: str, defence: str) -> str:
    one = table.figures(attack, defence)
    success = f" ({one['success']})" if one["success"] else ""
    refused = table.cells[attack, defence].measures.honest_refused
    return f"{one['accuracy']}{success}" + (f" -{100.0 * refused:.0f}%" if refused >= 0.005 else "")  # noqa: PLR2004


def summary(table: Table) -> list[list[str]]:
    """A row a defence: its worst points lost by attacks of each kind, and what it did to the honest."""
    return [_summed(table, defence) for defence in table.defences]


SUMMARY_COLUMNS: Final = (
    "defence",
    "clean",
    "lost: plain",
    "knows the rules",
    "floods and knows",
    "backdoor",
    "honest refused",
    "worst device",
)


def _summed(table: Table, defence: str) -> list[str]:
    def worst(*, knows: bool, floods: bool | None) -> str:
        losses = [
            (table.lost(name, defence), name)
            for name in table.attacks
            if name != NO_ATTACK
            and ATTACKS[name].knows_rules == knows
            and (floods is None or ATTACKS[name].floods == floods)
        ]
        return "" if not losses else "{:.1f} {}".format(*max(losses))

    cells = [table.cells[attack, defence].measures for attack in table.attacks]
    successes = [one.success for one in cells if one.success is not None]
    return [
        defence,
        f"{table.clean(defence):.3f}",
        worst(knows=False, floods=None),
        worst(knows=True, floods=False),
        worst(knows=True, floods=True),
        f"{100 * max(successes):.0f} %" if successes else "",
        f"{100 * max(one.honest_refused for one in cells):.1f} %",
        f"{100 * max(one.worst_device for one in cells):.0f} %",
    ]
