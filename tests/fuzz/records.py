"""`make fuzz-records RECORDS=1000000 SEED=1`: four readers have to agree, on mutated records and certificates.

For every record of every kind: the workers' decoder, fastavro's pure-Python reader (whose record is written again and
compared), the checker's, and one written for this test from the specification. One verdict and equal values, to the
bit; and the workers' and the one from the specification name the same flaw at the same byte. For certificates: the
workers' reading and the checker's, and what both take, `cryptography` reads alike.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import random
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import click
import fastavro._read_py as pure_reader
import fastavro._write_py as pure_writer
from cryptography import x509

from aggregation.reasons import Reason
from fluvial.proof.checker import exact
from fluvial.proof.checker.holders import NotHolder, read_holder
from schemas import avro, canonical, der
from schemas.certificates import Role
from tests import factories
from tests.fuzz import avro_by_words
from tests.fuzz.avro_by_words import HEADER, Refused
from tests.fuzz.loose import Loose, changed

KINDS = (
    ("client_update", 2), ("client_update", 2), ("client_update", 1), ("signed_envelope", 1), ("barrier", 1),
    ("tick", 1), ("revoke", 1), ("skip", 1), ("regional_aggregate", 1), ("model_announcement", 1),
)  # fmt: skip
CERTIFICATES_SHARE = 0.1
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
SHOWN_MAX = 10
FINDING_SHOWN_MAX = 600
PROGRESS_EVERY = 50_000
SCHEMAS = {(name, version): avro_by_words.schema(name, version) for name, version in KINDS}
OURS = {
    key: next(s for s in avro.schemas_for(text["name"]) if s.version == key[1])
    for key, text in SCHEMAS.items()
}


@dataclass
class Report:
    """What a run came to. ``findings`` are disagreements; ``flaws`` counts what was refused, and why."""

    records: int = 0
    taken: int = 0
    certificates: int = 0
    certificates_taken: int = 0
    flaws: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


def bits(value: Any) -> Any:
    """A value that compares by its bits: of a double its eight bytes, of a time its milliseconds."""
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, dt.datetime):
        return (value - EPOCH) // dt.timedelta(milliseconds=1)
    if isinstance(value, dict):
        return {name: bits(one) for name, one in value.items()}
    return [bits(one) for one in value] if isinstance(value, list) else value


def by_us(data: bytes, key: tuple[str, int]) -> tuple[Any, Any]:
    """(the record, None), or (None, (flaw, where))."""
    try:
        return canonical.decode(data, OURS[key]), None
    except avro.CodecError as error:
        because = error.because
        if because.reason is Reason.MALFORMED:
            return None, because.values[1:]
        return None, (because.reason.name.lower(), -1)


def by_words(data: bytes, key: tuple[str, int]) -> tuple[Any, Any]:
    """The same, by the reader from the specification."""
    try:
        return avro_by_words.read(data, SCHEMAS[key]), None
    except Refused as refused:
        return None, refused.args


def by_the_checker(data: bytes, key: tuple[str, int]) -> Any:
    """The record, or None."""
    try:
        return exact.read(data[HEADER:], SCHEMAS[key], counted=key[0] == "client_update")
    except exact.NotCanonical:
        return None


def by_pure_fastavro(data: bytes, key: tuple[str, int]) -> Any:
    """The record that fastavro's pure-Python reader finds, if its writer gives the same bytes of it; else None."""
    parsed = OURS[key].parsed
    body = io.BytesIO(data[HEADER:])
    try:
        record = pure_reader.schemaless_reader(body, parsed, None)
    except (EOFError, ValueError, IndexError, OverflowError, KeyError, TypeError, struct.error):
        return None
    if body.read(1) or not within_64_bits(record):
        return None
    again = io.BytesIO()
    pure_writer.schemaless_writer(again, parsed, record)
    return record if again.getvalue() == data[HEADER:] else None


def within_64_bits(value: Any) -> bool:
    """Whether no number in a record is larger: Python's have no end, so the pure reader takes any."""
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 63
    if isinstance(value, dict):
        return all(map(within_64_bits, value.values()))
    return all(map(within_64_bits, value)) if isinstance(value, list) else True


def judge_record(rng: random.Random, report: Report) -> None:
    """Make one record, ask all readers."""
    key = rng.choice(KINDS)
    body = Loose(rng, rng.choice((0.0, 0.0, 0.02, 0.1))).value(SCHEMAS[key])
    if rng.random() < 0.6:
        body = changed(rng, body)
    data = OURS[key].header + body
    record, why = by_us(data, key)
    other, other_why = by_words(data, key)
    readings = {
        "words": bits(other),
        "checker": bits(by_the_checker(data, key)),
        "pure fastavro": bits(by_pure_fastavro(data, key)),
    }
    report.records += 1
    report.taken += record is not None
    if why is not None:
        report.flaws[why[0]] += 1
    wrong = [name for name, found in readings.items() if found != bits(record)]
    if wrong or why != other_why:
        report.findings.append(f"{key} {data.hex()}: {why}, by words {other_why}, others: {wrong}")


def certificates() -> list[bytes]:
    """Good ones of each role, and odd ones."""
    return [
        factories.certificate("eu", Role.DEVICE, "d-1"),
        factories.certificate("eu", Role.WORKER, "w-1", serial=127),
        factories.certificate("control", Role.MERGER, "m-1", serial=128, is_authority=None),
        factories.certificate("eu", Role.DEVICE, "d-2", not_after=dt.datetime(2050, 1, 1, tzinfo=dt.UTC)),
        factories.certificate("eu", Role.DEVICE, "d-3", is_authority=True),
        factories.certificate("eu", Role.DEVICE, "d-4", uris=("spiffe://eu/device/d-4", "https://x")),
        factories.certificate("eu", Role.DEVICE, "d-5", uris=()),
    ]


def judge_certificate(rng: random.Random, originals: list[bytes], report: Report) -> None:
    """Change one certificate, ask both readers, and the library what it makes of one that both take."""
    data = rng.choice(originals)
    if rng.random() < 0.95:
        data = changed(rng, data)
    try:
        ours = der.read_certificate(data)
    except (der.NotDerError, der.NotOursError):
        ours = None
    try:
        theirs = read_holder(data)
    except NotHolder:
        theirs = None
    report.certificates += 1
    report.certificates_taken += ours is not None
    fields = (
        "signed",
        "signature",
        "issuer",
        "serial",
        "not_before_ms",
        "not_after_ms",
        "key",
        "is_authority",
    )
    mine = ours and ([getattr(ours, name) for name in fields], list(ours.uris))
    other = theirs and ([getattr(theirs, name) for name in fields], theirs.uris)
    if mine != other:
        report.findings.append(f"certificate {data.hex()}: {mine}, the checker {other}")
    if ours is not None and (problem := unlike_the_library(ours, data)):
        report.findings.append(f"certificate {data.hex()}: {problem}")


def unlike_the_library(ours: der.Certificate, data: bytes) -> str:
    """What `cryptography` reads otherwise in a certificate that it reads at all; "" for nothing."""
    try:
        read = x509.load_der_x509_certificate(data)
        said = (
            read.tbs_certificate_bytes,
            read.serial_number,
            int(read.not_valid_before_utc.timestamp() * 1000),
            int(read.not_valid_after_utc.timestamp() * 1000),
        )
    except ValueError:
        return ""  # what it does not take is its version's affair
    mine = (ours.signed, ours.serial, ours.not_before_ms, ours.not_after_ms)
    return "" if said == mine else f"{mine}, the library {said}"


def run(records: int, seed: int, *, progress: Any = None) -> Report:
    """So many records and certificates; the same seed makes the same."""
    rng, report, originals = random.Random(seed), Report(), certificates()
    for number in range(1, records + 1):
        if rng.random() < CERTIFICATES_SHARE:
            judge_certificate(rng, originals, report)
        else:
            judge_record(rng, report)
        if len(report.findings) >= SHOWN_MAX:
            break
        if progress is not None and number % PROGRESS_EVERY == 0:
            progress(number)
    return report


@click.command()
@click.option("--records", default=100_000, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same records.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def main(*, records: int, seed: int, as_json: bool) -> None:
    """Mutate records and certificates, ask every reader. Exit code 0 when all agreed, 1 with findings."""
    began = time.monotonic()
    report = run(records, seed, progress=lambda number: click.echo(f"{number} done", err=True))
    document = vars(report) | {"flaws": dict(report.flaws.most_common()), "seed": seed}
    if as_json:
        click.echo(json.dumps(document))
    else:
        click.echo(
            f"{report.records} records ({report.taken} taken), {report.certificates} certificates "
            f"({report.certificates_taken} taken), seed {seed}, {time.monotonic() - began:.0f} s"
        )
        click.echo(f"refused: {', '.join(f'{flaw} {count}' for flaw, count in report.flaws.most_common())}")
        for finding in report.findings:
            click.echo(finding[:FINDING_SHOWN_MAX])
    sys.exit(1 if report.findings else 0)


if __name__ == "__main__":
    main()
