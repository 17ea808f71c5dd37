"""Slow, obvious twins: of every kernel, in Python ints and floats; of FedBuff, in float64; of the wire's
hashes.

They follow the papers and the specifications, not our code, and are written to be believed at a glance.
"""

from __future__ import annotations

import itertools
import math
import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def squares_int8(q: npt.NDArray[np.int8], starts: Ints) -> list[int]:
    """Σ q² of every tensor, in Python ints."""
    return [sum(int(x) ** 2 for x in q[a:b]) for a, b in _spans(starts)]


def dots_int8(q: npt.NDArray[np.int8], reference: npt.NDArray[np.int8], starts: Ints) -> list[int]:
    """Σ q·reference of every tensor, in Python ints."""
    pairs = [(int(x), int(y)) for x, y in zip(q, reference, strict=True)]
    return [sum(x * y for x, y in pairs[a:b]) for a, b in _spans(starts)]


def accumulate_int8(sums: Ints, q: npt.NDArray[np.int8], starts: Ints, coefficients: Ints) -> list[int]:
    """``sums + q · coefficient of its tensor``, in Python ints."""
    out = [int(x) for x in sums]
    for (a, b), c in zip(_spans(starts), coefficients.tolist(), strict=True):
        for i in range(a, b):
            out[i] += int(q[i]) * c
    return out


def all_finite_float32(x: npt.NDArray[np.float32]) -> bool:
    """Whether no element is NaN or infinite."""
    return all(math.isfinite(value) for value in x.tolist())


def squares_float32(x: npt.NDArray[np.float32], starts: Ints) -> list[float]:
    """Σ x² of every tensor, in Python floats, element by element."""
    out = []
    for a, b in _spans(starts):
        total = 0.0
        for value in x[a:b].tolist():
            total += value * value
        out.append(total)
    return out


def dots_float32(x: npt.NDArray[np.float32], reference: npt.NDArray[np.int8], starts: Ints) -> list[float]:
    """Σ x·reference of every tensor, in Python floats, element by element."""
    out = []
    for a, b in _spans(starts):
        total = 0.0
        for value, other in zip(x[a:b].tolist(), reference[a:b].tolist(), strict=True):
            total += value * float(other)
        out.append(total)
    return out


def accumulate_float32(sums: Ints, x: npt.NDArray[np.float32], factor: float) -> list[int]:
    """``sums + rint(x · factor)``; Python's ``round`` of a float is exact and half to even."""
    return [int(s) + round(value * factor) for s, value in zip(sums, x.tolist(), strict=True)]


def accumulate_values(sums: Ints, x: npt.NDArray[np.float32], digits: int, weight: int) -> list[int]:
    """Weight times each value, a whole number of 2^-149, as 32-bit digits of its sign, added to ``sums``."""
    out = [int(s) for s in sums]
    for i, value in enumerate(x.tolist()):
        whole = Fraction(value) * 2**149 * weight
        assert whole.denominator == 1
        left = abs(int(whole))
        for k in range(digits):
            left, digit = divmod(left, 2**32)
            out[digits * i + k] += digit if value > 0 else -digit
        assert left == 0
    return out


def mean_of_values(values: Sequence[float], weights: Sequence[int]) -> float:
    """Σ w·v / Σ w as a float32: of the two that lie around it the nearer one, else the one with an even last bit."""
    pairs = zip(values, weights, strict=True)
    exact = Fraction(sum(Fraction(v) * w for v, w in pairs)) / sum(weights)
    near = np.float32(float(exact))
    around = [float(np.nextafter(near, np.float32(side))) for side in (-np.inf, np.inf)]
    candidates = [c for c in (around[0], float(near), around[1]) if math.isfinite(c)]
    odd = {c: np.float32(c).view(np.uint32) & 1 for c in candidates}
    return min(candidates, key=lambda c: (abs(Fraction(c) - exact), odd[c])) + 0.0


def add_windows(total: Ints, one: Ints) -> tuple[list[int], tuple[int, int]]:
    """``total + one`` in Python ints, wrapped into int64, and how far ``one`` reaches below and above 0."""
    wrapped = [(int(a) + int(b) + 2**63) % 2**64 - 2**63 for a, b in zip(total, one, strict=True)]
    return wrapped, (min(0, *one.tolist()), max(0, *one.tolist()))


def late_window(one: Ints, weight: int) -> list[int]:
    """What a window adds that counts weight / 65536 of itself: floor(x · weight / 65536 + 1/2) of every element."""
    return [math.floor(Fraction(int(x)) * weight / 65536 + Fraction(1, 2)) for x in one]


def late_weight(weight_total: int, weight: int) -> int:
    """The same of what its updates weigh; of a window that accepted some and counts, at least 1."""
    if weight_total == 0 or weight == 0:
        return 0
    return max(1, math.floor(Fraction(weight_total * weight, 65536) + Fraction(1, 2)))


def pooled(before: Mapping[int, int], windows: Sequence[Mapping[int, int]]) -> dict[int, int]:
    """Three quarters of each old count, rounded down, and 256 for each new one; what comes to nothing is left out."""
    buckets = set(before).union(*windows)
    new = {
        bucket: math.floor(Fraction(3 * before.get(bucket, 0), 4))
        + 256 * sum(window.get(bucket, 0) for window in windows)
        for bucket in buckets
    }
    return {bucket: new[bucket] for bucket in sorted(new) if new[bucket]}


def mean_delta(total: Ints, exponent: int, divisor: float) -> list[float]:
    """Each sum in model units, divided: two quotients in Python floats."""
    return [float(x) / float(2**exponent) / divisor for x in total.tolist()]


def direction(
    after: Sequence[float], before: Sequence[float], starts: Ints
) -> tuple[list[int], list[float], list[int]]:
    """Levels, scales and Σ level² of every tensor of a step: scale max|x| / 127, levels rint(x / scale)."""
    step = [a - b for a, b in zip(after, before, strict=True)]
    levels, scales = [], []
    for a, b in _spans(starts):
        sizes = [abs(x) for x in step[a:b]]
        scale = math.nan if any(math.isnan(x) for x in sizes) else max(sizes) / 127
        for x in step[a:b]:
            level = x / scale if scale > 0.0 else 0.0
            levels.append(0 if math.isnan(level) else max(-127, min(127, round(level))))
        scales.append(scale)
    return levels, scales, [sum(level**2 for level in levels[a:b]) for a, b in _spans(starts)]


def exact_mean(models: Sequence[npt.NDArray[np.float32]], exponent: int) -> list[float]:
    """FedAvg: Σ round(x · 2^exponent) in Python ints, divided twice in Python floats, as float32."""
    columns = zip(*(model.tolist() for model in models), strict=True)
    totals = [sum(round(x * 2**exponent) for x in column) for column in columns]
    return [float(np.float32(float(total) / float(2**exponent) / len(models))) for total in totals]


def unpack_int8(data: bytes) -> list[int]:
    """One byte an element, two's complement."""
    return [byte - 256 if byte > 127 else byte for byte in data]


def pack_int8(levels: Sequence[float]) -> bytes | None:
    """The inverse; None where a level does not fit."""
    return bytes(int(q) % 256 for q in levels) if all(-128 <= q <= 127 for q in levels) else None


def unpack_int4(data: bytes, elements: int) -> list[int]:
    """Two elements a byte, the low half first, two's complement."""
    bits = "".join(f"{byte:08b}"[4:] + f"{byte:08b}"[:4] for byte in data)
    halves = [int(bits[i : i + 4], 2) for i in range(0, len(bits), 4)][:elements]
    return [half - 16 if half >= 8 else half for half in halves]


def pack_int4(levels: Sequence[float]) -> bytes | None:
    """The inverse, the last half filled up with 0; None where a level is not in -7 … 7."""
    if not all(-7 <= level <= 7 for level in levels):
        return None
    halves = [int(level) % 16 for level in levels] + [0] * (len(levels) % 2)
    return bytes(low + 16 * high for low, high in zip(halves[::2], halves[1::2], strict=True))


def unpack_float32(data: bytes) -> list[float]:
    """Four bytes an element, IEEE 754, little-endian."""
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def fedbuff_step(
    model: Floats,
    deltas: Sequence[Floats],
    staleness: Sequence[int],
    *,
    norm_clip: float,
    learning_rate: float,
) -> Floats:
    """FedBuff (Nguyen et al. 2022, algorithm 1): clip, weigh by 1/√(1+τ), add, divide by K, step."""
    total = np.zeros_like(model)
    for delta, tau in zip(deltas, staleness, strict=True):
        norm = float(np.sqrt(np.sum(delta * delta)))
        clip = min(1.0, norm_clip / norm) if norm else 1.0
        total = total + delta * clip / math.sqrt(1.0 + tau)
    return model + learning_rate * total / len(deltas)


def merge_counts(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Counts added by key."""
    keys = {key for one in counts for key in one}
    return {key: sum(one.get(key, 0) for one in counts) for key in sorted(keys)}


def crc64_avro(data: bytes) -> int:
    """CRC-64-AVRO, as the Avro specification's "Schema Fingerprints" gives it."""
    empty = 0xC15D213AA4D7A795
    table = []
    for i in range(256):
        fp = i
        for _ in range(8):
            fp = (fp >> 1) ^ (empty if fp & 1 else 0)
        table.append(fp)
    fp = empty
    for byte in data:
        fp = (fp >> 8) ^ table[(fp ^ byte) & 0xFF]
    return fp


def zigzag(value: int) -> bytes:
    """An Avro ``long``."""
    number = (value << 1) ^ (value >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def avro(schema: Any, value: Any) -> bytes:
    """Avro's binary encoding of a value, for the types that our schemas use; map keys keep their order."""
    kind = schema["type"] if isinstance(schema, dict) else schema
    match kind:
        case "string":
            return zigzag(len(value.encode())) + bytes(value.encode())
        case "bytes":
            return zigzag(len(value)) + bytes(value)
        case "long":
            return zigzag(value)
        case "double":
            return struct.pack("<d", value)
        case "enum":
            return zigzag(schema["symbols"].index(value))
        case "array":
            items = b"".join(avro(schema["items"], item) for item in value)
            return zigzag(len(value)) + items + b"\0" if value else b"\0"
        case "map":
            entries = b"".join(avro("string", key) + avro(schema["values"], v) for key, v in value.items())
            return zigzag(len(value)) + entries + b"\0" if value else b"\0"
        case "record":
            return b"".join(avro(field["type"], value[field["name"]]) for field in schema["fields"])
        case dict() | str():
            return avro(kind, value)
        case _:
            raise ValueError(f"no encoding for {schema}")


def _spans(starts: Ints) -> list[tuple[int, int]]:
    edges = starts.tolist()
    return list(itertools.pairwise(edges))


def gram_of(rows: Ints, weights: Sequence[int]) -> list[list[float]]:
    """Inner products of vectors over their weights, each sum from its first element to its last, in float64."""
    vectors = rows.astype(np.float64)
    found = [[0.0] * len(vectors) for _ in vectors]
    for a in range(len(vectors)):
        for b in range(a, len(vectors)):
            product = float(np.add.accumulate(vectors[a] * vectors[b])[-1])
            found[a][b] = found[b][a] = product / (float(weights[a]) * float(weights[b]))
    return found


def combined(rows: Ints, weights: Sequence[int], coefficients: Sequence[float]) -> Ints:
    """Vectors with coefficients of their means, rounded to integers within ±2**62."""
    total = np.zeros(rows.shape[1])
    for row, weight, coefficient in zip(rows, weights, coefficients, strict=True):
        total += coefficient * float(sum(weights)) / float(weight) * row.astype(np.float64)
    return np.rint(np.clip(total, -(2.0**62), 2.0**62)).astype(np.int64)
