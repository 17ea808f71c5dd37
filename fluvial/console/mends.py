"""What mends a part that is not well: the commands, the runbook, the errors' pages. A table, and pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fluvial.console.pages import error_ids, page_of, runbook

NAMES_MAX: Final = 3
"""Processes that are gone, for which a command is named."""


@dataclass(frozen=True, slots=True)
class Case:
    """What mends one thing. ``words`` go behind ``fluvial``; ``{task}`` and the like stand in them.

    A command with ``{name}`` is one for each process that is gone: under its own name it takes its place.
    """

    words: tuple[str, ...]
    runbook: str
    title: str
    errors: tuple[str, ...] = ()


_DIED: Final = ("process-died", "A process has died")
_LAG: Final = ("lag", "Workers are behind")
CASES: Final[dict[tuple[str, str], Case]] = {
    ("kafka", "away"): Case(("up", "doctor"), *_DIED, ("FLV-3100",)),
    ("store", "away"): Case(("up", "doctor"), *_DIED, ("FLV-4002",)),
    ("merger", "gone"): Case(("merger --task {task} --name {name}",), *_DIED),
    ("merger", "stuck"): Case(("status --task {task}",), "no-new-version", "No new version"),
    ("merger", "late"): Case(("status --task {task}",), "no-new-version", "No new version"),
    ("merger", "not seen"): Case(("merger --task {task}",), "no-new-version", "No new version"),
    ("region", "worker gone"): Case(("worker --task {task} --region {region} --name {name}",), *_DIED),
    ("region", "stopped"): Case(("status --task {task}",), "partition-stuck", "A partition is stuck"),
    ("region", "no worker"): Case(("worker --task {task} --region {region}",), *_LAG),
    ("region", "lags"): Case(("worker --task {task} --region {region}",), *_LAG),
    ("region", "not seen"): Case(
        ("worker --task {task} --region {region}",), "region-silent", "A region is silent"
    ),
    ("updates", "refused"): Case(
        ("verdicts --task {task} --from @-10m",), "refused-updates", "Updates are refused"
    ),
    ("evaluator", "gone"): Case(("evaluator --task {task} --name {name}",), *_DIED),
    ("evaluator", "behind"): Case(
        ("evaluator --task {task}", "versions --task {task}"), "evaluation", "Versions without an evaluation"
    ),
    ("evaluator", "failing"): Case(
        ("versions --task {task}",), "evaluation", "Versions without an evaluation", ("FLV-2209",)
    ),
    ("audit", "differs"): Case(
        ("audit --task {task} --to {version}",), "audit-mismatch", "An audit differs", ("FLV-5001",)
    ),
}
"""By a part's kind and the word that it is in. A part that is not known yet has nothing to be mended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something has to be mended. ``gone`` are names of processes that do not answer; "" and None: not known."""

    command: str
    task: str
    region: str = ""
    gone: Sequence[str] = ()
    version: int | None = None


def mend_document(kind: str, word: str, reason: str, place: Place) -> dict[str, Any]:
    """For JSON: ``commands`` to copy, ``runbook`` {title, page} or null, ``errors`` [{id, page}].

    Ids that ``reason`` names are among the errors.
    """
    case = CASES.get((kind, word))
    named = error_ids(reason) if case is None else list(dict.fromkeys([*error_ids(reason), *case.errors]))
    return {
        "commands": [] if case is None else _commands(case, place),
        "runbook": None if case is None else {"title": case.title, "page": runbook(case.runbook)},
        "errors": [{"id": one, "page": page_of(one)} for one in named],
    }


def _commands(case: Case, place: Place) -> list[str]:
    found = []
    for words in case.words:
        for name in place.gone[:NAMES_MAX] if "{name}" in words else ("",):
            filled = words.format(
                task=shlex.quote(place.task),
                region=shlex.quote(place.region),
                name=shlex.quote(name),
                version=place.version,
            )
            found.append(f"{place.command} {filled}")
    return found
