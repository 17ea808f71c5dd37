"""Run by other interpreters, with the sources and pure-Python packages only: reads odd records, writes verdicts.

On standard input the vectors of ``odd_records.v1.json``. On standard output one JSON document: for each what our
readers say of envelope, payload and certificate, and the bytes of its verdict, made anew from the verdict's own fields.
"""

from __future__ import annotations

import json
import platform
import sys
from typing import Any

from aggregation.fold.rules import CANONICAL_RULES
from aggregation.reasons import REASONS
from schemas import avro, canonical, der
from schemas.verdicts import decode_verdict, encode_verdict


def of_record(value: bytes) -> list[Any]:
    """What the readers say: the envelope's flaw, or the payload's and the certificate's."""
    try:
        fields = canonical.decode(value, avro.schema_of(value))
        payload = fields["payload"]
        said: list[Any] = [fields["kind"], len(payload)]
    except avro.CodecError as error:
        return flaw(error)
    try:
        record = canonical.decode(payload, avro.schema_of(payload))
        said.append(sorted(record))
    except avro.CodecError as error:
        said.append(flaw(error))
    try:
        found = der.read_certificate(fields["certificate"])
        said.append(
            [found.serial, found.not_before_ms, found.not_after_ms, [uri.decode() for uri in found.uris]]
        )
    except (der.NotDerError, der.NotOursError) as error:
        said.append(type(error).__name__)
    return said


def flaw(error: avro.CodecError) -> list[Any]:
    """A reason as it goes into a verdict."""
    return [error.because.reason.code, *error.because.values]


def main() -> None:
    """Read, judge, write."""
    vectors = json.load(sys.stdin)
    document = {
        "python": platform.python_version(),
        "reasons": [[code, reason.name, list(reason.fields)] for code, reason in REASONS.items()],
        "records": [of_record(bytes.fromhex(one["record"])) for one in vectors],
        "verdicts": [
            encode_verdict(decode_verdict(bytes.fromhex(one["verdict"])), CANONICAL_RULES).hex()
            for one in vectors
        ],
    }
    json.dump(document, sys.stdout)


if __name__ == "__main__":
    main()
