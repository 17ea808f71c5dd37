"""Tables in the texts of the contract that are generated: each stands between two comments that name it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tests.vectors.wire import schemas

SCHEMAS: Final = Path(__file__).parents[2] / "schemas"


def fingerprints() -> str:
    """One row a schema file."""
    rows = ["| file | fingerprint, as it stands in a header | SHA-256 of the schema |", "|---|---|---|"]
    rows += [f"| `{one['file']}` | `{one['header'][4:]}` | `{one['sha256']}` |" for one in schemas()["cases"]]
    return "\n".join(rows)


def pages() -> dict[Path, str]:
    """The texts with their tables as they have to be."""
    page = SCHEMAS / "README.md"
    return {page: with_table(page.read_text(), "fingerprints", fingerprints())}


def with_table(text: str, name: str, table: str) -> str:
    """``text`` with this table; ValueError where it has no place for it."""
    begin, end = f"<!-- {name}: begin (make vectors) -->", f"<!-- {name}: end -->"
    found, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{table}\n{end}", text, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"expected one place for the table {name}, found {count}")
    return found
