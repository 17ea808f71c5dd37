"""`make fuzz-decoder SECONDS=60`: coverage-guided bytes for the decoder. Whatever comes in, an Event comes out.

The targets see fastavro's Cython code from outside only; what guides them is our own Python: ``schemas``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import get_args

try:
    import atheris
except ImportError:
    sys.exit(
        f"atheris is not installed; it has wheels for some Python versions on Linux only, this is "
        f"{sys.version_info.major}.{sys.version_info.minor} on {sys.platform}\nhint: make fuzz-decoder installs it"
    )

with atheris.instrument_imports(include=["schemas"]):
    from schemas import avro as codec
    from schemas import envelope
    from schemas.records import decode_record
    from schemas.verdicts import decode_verdict

from aggregation.fold.events import Event
from schemas.certificates import Role
from tests import factories

POLICY = factories.policy(format="fluvial/policy/v5", updates={"bytes_max": 1 << 20})
TIMESTAMP_MS = factories.NOW_MS
TRUST = factories.trust()
SIGNERS = {
    "ClientUpdate": factories.device_signer("d-1"),
    "Barrier": factories.merger_signer(),
    "Tick": factories.worker_signer(),
    "Revoke": factories.operator_signer(),
    "Skip": factories.operator_signer(),
    "Pardon": factories.operator_signer(),
    "RegionalAggregate": factories.signer("eu", Role.WORKER, "w-1"),
}
KINDS = sorted(SIGNERS)
EVENTS = get_args(Event)


def one_input(data: bytes) -> None:
    """The first byte chooses the target, the others are its input."""
    if not data:
        return
    target, body = data[0] % 4, data[1:]
    match target:
        case 0:
            require_event(body)
        case 1:
            require_event(signed(body))
        case 2:
            require_codec_error_or_nothing(body)
        case _:
            require_event(codec.schema_for(envelope.ENVELOPE).header + body)


def signed(body: bytes) -> bytes:
    """An envelope with a true signature around any payload: what a certified device could send."""
    kind = KINDS[body[0] % len(KINDS)] if body else KINDS[0]
    return SIGNERS[kind].sign_payload(kind, codec.schema_for(kind).header + body[1:])


def require_event(value: bytes) -> None:
    """The decoder never raises and always says what the record is."""
    event = decode_record(value, TIMESTAMP_MS, TRUST, POLICY)
    if not isinstance(event, EVENTS):
        raise TypeError(f"{event!r} is no event")


def require_codec_error_or_nothing(value: bytes) -> None:
    """Opening an envelope or a verdict raises CodecError or nothing."""
    for read in (envelope.open_envelope, decode_verdict, codec.decode):
        try:
            read(value)
        except codec.CodecError:
            continue


def seeds() -> list[bytes]:
    """One good input for every target and kind."""
    update = factories.update_bytes("d-1")
    made = [b"\0" + update, b"\2" + update, b"\3" + update[codec.HEADER_BYTES :]]
    made += [b"\0" + factories.barrier_bytes(1, factories.policy()), b"\0" + factories.tick_bytes(0)]
    made.append(b"\0" + factories.revoke_bytes("d-1"))
    for path in sorted((Path(__file__).parents[1] / "golden").glob("*.avro")):
        data = path.read_bytes()
        made.append(b"\2" + data)
        name = codec.schema_of(data).name
        if name in KINDS:
            made.append(bytes((1, KINDS.index(name))) + data[codec.HEADER_BYTES :])
    return made


def main() -> None:
    """Fuzz until libFuzzer's own limits end it; arguments are libFuzzer's, such as -max_total_time=60."""
    with tempfile.TemporaryDirectory(prefix="fluvial-corpus-") as folder:
        for number, seed in enumerate(seeds()):
            (Path(folder) / f"seed-{number:02d}").write_bytes(seed)
        atheris.Setup([*sys.argv, folder], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
