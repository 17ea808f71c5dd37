"""Write ``schemas/vectors`` and the tables of ``schemas/README.md``: ``python -m tests.vectors`` (``make vectors``).

``--check`` writes nothing and ends with 1 where what is there is not what the code gives. ``--tables`` leaves the
vectors as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.vectors import (
    bucketed,
    checks,
    cohorts,
    defences,
    digests,
    encodings,
    genesis,
    heads,
    learning,
    manifests,
    names,
    numbers,
    policies,
    robust,
    signatures,
    tables,
    varied,
    wire,
)
from tests.vectors.writing import text_of

FOLDER: Final = Path(__file__).parents[2] / "schemas" / "vectors"
FILES: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {
    "schemas.json": wire.schemas,
    "records.json": wire.records,
    "envelopes.json": wire.envelopes,
    "heads.json": heads.heads,
    "signatures.json": signatures.signatures,
    "certificates.json": lambda: wire.certificates(cohorts.certificates()),
    "encodings.json": encodings.encodings,
    "partitions.json": wire.partitions,
    "staleness.json": policies.staleness,
    "policies.json": policies.policies,
    "genesis.json": genesis.genesis,
    "manifests.json": manifests.manifests,
    "names.json": names.names,
    "digests.json": digests.digests,
    "codecs.json": numbers.codec_cases,
    "norms.json": numbers.norm_cases,
    "scores.json": numbers.score_cases,
    "defences.json": defences.defence_cases,
    "usual.json": defences.usual_cases,
    "buffers.json": numbers.buffer_cases,
    "buckets.json": robust.bucket_cases,
    "robust.json": robust.robust_cases,
    "lots.json": learning.lot_cases,
    "examples.json": learning.example_cases,
    "lateness.json": learning.lateness_cases,
    "rates.json": learning.rate_cases,
    "merges.json": varied.merge_cases,
    "logs.json": bucketed.log_cases,
    "checks.json": checks.check_cases,
}


def differing(*, only_tables: bool = False) -> dict[Path, str]:
    """What the code gives, by the files that are missing or say something else."""
    made = {} if only_tables else {FOLDER / name: text_of(make()) for name, make in FILES.items()}
    made |= tables.pages()
    return {path: text for path, text in made.items() if not path.exists() or path.read_text() != text}


def main(arguments: list[str] | None = None) -> int:
    """Write what differs, or say it."""
    parser = argparse.ArgumentParser(prog="python -m tests.vectors", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where something differs")
    parser.add_argument("--tables", action="store_true", help="the tables in the texts alone")
    options = parser.parse_args(arguments)
    found = differing(only_tables=options.tables)
    for path, text in found.items():
        if not options.check:
            path.write_text(text)
        sys.stdout.write(f"{'differs' if options.check else 'written'}  {path.name}\n")
    known = {*FILES, "README.md"}
    stray = sorted(path.name for path in FOLDER.iterdir() if path.name not in known)
    for name in stray:
        sys.stdout.write(f"nobody makes  {name}\n")
    return 1 if stray or (found and options.check) else 0


if __name__ == "__main__":
    sys.exit(main())
