"""Codecs: how a delta travels, is measured and is added to exact sums."""

from aggregation.codecs.delta import (
    CODECS,
    CodecName,
    Delta,
    Direction,
    EncodedTensor,
    Measured,
    accumulate_into,
    cosine,
    data_bytes,
    direction_from,
    direction_of,
    encode_delta,
    is_finite,
    measure,
    view_delta,
)

__all__ = [
    "CODECS",
    "CodecName",
    "Delta",
    "Direction",
    "EncodedTensor",
    "Measured",
    "accumulate_into",
    "cosine",
    "data_bytes",
    "direction_from",
    "direction_of",
    "encode_delta",
    "is_finite",
    "measure",
    "view_delta",
]
