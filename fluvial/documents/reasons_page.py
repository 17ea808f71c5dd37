"""``docs/reasons.md``, from the table of reasons: ``python -m fluvial.documents.reasons_page`` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from aggregation.reasons import REASONS, VALUE_CHARACTERS_MAX, Reason

PAGE: Final = Path(__file__).parents[2] / "docs" / "reasons.md"
TYPES: Final = {int: "long", float: "double", str: "string"}
EXAMPLES: Final[dict[type, int | float | str]] = {int: 7, float: 1.5, str: "abc"}

HEAD: Final = f"""# Reasons

<!-- Written by `python -m fluvial.documents.reasons_page` from aggregation/reasons.py: change it there. -->

A `Verdict` of version 2 says why by a code and values, in the order and of the types of this table. Nothing in a
verdict is a library's text, so its bytes are the same whatever folds the log. Words are written by whoever shows one:
the column *words* has an example for each, made with {EXAMPLES[int]}, {EXAMPLES[float]} and `{EXAMPLES[str]}`. Strings
are cut to {VALUE_CHARACTERS_MAX} characters (code points); they may hold what a device wrote, so whoever shows them
escapes them.

A control record that is not authentic has the outcome `bad_signature` whatever it failed at: the reason says which
check that was, and `forged` which kind the record says it is. A code is never given a second meaning. Code 0 is that of
an update that was accepted as it is.

The version 1 of a verdict, in tasks whose genesis document is older than `fluvial/genesis/v4`, holds words in the
place of all this (`detail`), with what a library said behind some of them.
"""


def page() -> str:
    """The whole page."""
    rows = ["| code | reason | outcome | values | words |", "|---|---|---|---|---|"]
    return "\n".join([HEAD, *rows, *(_row(reason) for reason in REASONS.values())]) + "\n"


def _row(reason: Reason) -> str:
    values = ", ".join(f"`{name}` {TYPES[kind]}" for name, kind in reason.fields.items())
    words = reason.words(*(EXAMPLES[kind] for kind in reason.fields.values()))
    outcome = f"`{reason.outcome}`" if reason.outcome else ""
    return f"| {reason.code} | `{reason.name.lower()}` | {outcome} | {values} | {words} |"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
