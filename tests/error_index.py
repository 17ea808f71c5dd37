"""The index of the error pages: ``python -m tests.error_index`` writes it, ``test_docs_site`` holds it to them."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "errors"
INDEX = FOLDER / "README.md"

GROUPS = {
    "10": "the machine and its settings",
    "20": "policies and layouts",
    "21": "refused updates",
    "22": "task files, data and simulation",
    "23": "keys",
    "24": "creating and finding tasks",
    "25": "devices and fleets",
    "30": "the log and its windows",
    "31": "Kafka",
    "32": "workers, and mergers' keys",
    "33": "versions and their chain",
    "40": "the object store",
    "41": "what objects hold",
    "50": "audit",
    "60": "the command line",
    "62": "looking inside",
    "63": "runs and the demo",
    "64": "chaos runs, and setting records aside",
    "65": "the console",
    "70": "metrics, exports and canaries",
    "90": "defects",
}
"""What the ids are about, by their first two digits."""

HEAD = """\
# Errors

Every error that Fluvial raises on purpose has an id that never gets a second meaning. Its message says what was
expected, what came and where, and names the next command; its page says what it means and how to mend it. Refused
updates are verdicts and no exceptions, and have ids as well.

What the exit code of a command says is in [Start](../start.md#when-something-goes-wrong). What to do by symptom is in
the [runbooks](../runbooks/README.md).
"""


def titles() -> dict[str, str]:
    """Each page's id and title."""
    found = {}
    for page in sorted(FOLDER.glob("FLV-*.md")):
        error_id, _, title = page.read_text().partition("\n")[0].removeprefix("# ").partition(": ")
        found[error_id] = title
    return found


def group_of(error_id: str) -> str:
    """The first two digits of an id."""
    return error_id.removeprefix("FLV-")[:2]


def text() -> str:
    """The whole index."""
    parts = [HEAD]
    for group, ids in groupby(titles().items(), key=lambda item: group_of(item[0])):
        parts.append(f"## {group}xx: {GROUPS[group]}\n\n| | |\n|---|---|")
        parts.append(
            "\n".join(f"| [{error_id}]({error_id}.md) | {title} |" for error_id, title in ids) + "\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    INDEX.write_text(text())
