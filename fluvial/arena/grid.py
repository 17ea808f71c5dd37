"""The table: every attack against every defence, over seeds, splits and shares of attackers; cell by cell, cached.

A cell is a function of the code, the defence's policy, the attack and the seed, so its result is kept under the hash of
these and never computed again.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from aggregation.errors import UsageProblem
from fluvial.arena.attacks import ATTACKS, NO_ATTACK
from fluvial.arena.defences import Contender, contender
from fluvial.arena.measures import Measures, mean_of, measured
from fluvial.arena.play import VERSIONS, Play
from fluvial.arena.world import TASKS, WHOLE_ROOT, Root, world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SOURCES: Final = ("aggregation", "fluvial/arena", "learning/datasets.py", "learning/partition.py")
"""What a cell's result depends on."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where attacks and defences meet. ``malicious``: share of the devices; ``alpha``: of the Dirichlet split."""

    task: str
    alpha: float
    malicious: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be played."""

    tasks: tuple[str, ...] = ("digits",)
    alphas: tuple[float, ...] = (0.5, 0.1)
    shares: tuple[float, ...] = (0.2, 0.3)
    attacks: tuple[str, ...] = tuple(ATTACKS)
    defences: tuple[str, ...] = ()
    seeds: int = 3
    devices: int = 40
    versions: int = VERSIONS
    root: Root = WHOLE_ROOT

    @property
    def settings(self) -> list[Setting]:
        """One table each."""
        return [Setting(*one) for one in itertools.product(self.tasks, self.alphas, self.shares)]

    @property
    def rows(self) -> tuple[str, ...]:
        """The attacks, and before them none."""
        return (NO_ATTACK, *(name for name in self.attacks if name != NO_ATTACK))

    @property
    def plays(self) -> int:
        """How many plays that is."""
        return len(self.settings) * len(self.rows) * len(self.defences) * self.seeds

    def check(self) -> None:
        """UsageProblem FLV-6440 where a name is unknown."""
        for name in self.defences:
            contender(name)
        for wanted, known, option in ((self.attacks, ATTACKS, "--attacks"), (self.tasks, TASKS, "--task")):
            unknown = [name for name in wanted if name not in known]
            if unknown or not wanted:
                raise UsageProblem(
                    "FLV-6440",
                    f"{option}: expected of {', '.join(known)}, got {', '.join(map(repr, unknown)) or 'none'}",
                    hint="`fluvial arena --list` says what there is",
                )


@dataclass(frozen=True, slots=True)
class Cell:
    """One attack against one defence in one setting: the means over the seeds."""

    setting: Setting
    attack: str
    defence: str
    measures: Measures


def run(plan: Plan, cache_folder: Path | None, told: Callable[[int, int], None]) -> list[Cell]:
    """Play it all, row by row. ``told`` gets (plays done, of which from the cache) after each."""
    plan.check()
    contenders = [contender(name) for name in plan.defences]
    done = cached = 0
    cells = []
    for setting, attack, defence in _cells(plan, contenders):
        several = []
        for seed in range(plan.seeds):
            measures, known = _played(plan, setting, attack, defence, seed=seed, folder=cache_folder)
            several.append(measures)
            done, cached = done + 1, cached + known
            told(done, cached)
        cells.append(Cell(setting, attack, defence.name, mean_of(several)))
    return cells


def _cells(plan: Plan, contenders: Sequence[Contender]) -> Iterator[tuple[Setting, str, Contender]]:
    yield from itertools.product(plan.settings, plan.rows, contenders)


def _played(
    plan: Plan, setting: Setting, attack: str, defence: Contender, *, seed: int, folder: Path | None
) -> tuple[Measures, bool]:
    """A play's measures, and whether they were known. Without an attack the share of attackers does not matter."""
    share = 0.0 if attack == NO_ATTACK else setting.malicious
    what = (setting.task, setting.alpha, share, attack, defence.name, defence.identity, seed)
    key = hashlib.sha256(
        repr((code_sha256(), what, plan.devices, plan.versions, plan.root)).encode()
    ).hexdigest()
    path = folder / f"{key}.json" if folder is not None else None
    if path is not None and path.is_file():
        try:
            return msgspec.json.decode(path.read_bytes(), type=Measures), True
        except msgspec.DecodeError:
            path.unlink()  # cut short when it was written: it is played again
    shared = world(setting.task, plan.devices, setting.alpha, seed, plan.root)
    play = Play(
        shared,
        ATTACKS.get(attack),
        defence.make(shared, seed),
        malicious=share,
        seed=seed,
        versions=plan.versions,
    )
    measures = measured(play.run())
    if path is not None:
        _keep(path, msgspec.json.encode(measures))
    return measures, False


def _keep(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(path)


@cache
def code_sha256() -> str:
    """The SHA-256 of all sources that a cell depends on."""
    root, digest = Path(__file__).parents[2], hashlib.sha256()
    for name in SOURCES:
        place = root / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
