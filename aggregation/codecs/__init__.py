"""Codecs: how a delta travels, is measured and is added to exact sums. A file a codec; ``CODECS`` names them."""

from aggregation.codecs.delta import (
    Delta,
    EncodedTensor,
    Measured,
    accumulate_into,
    cosine,
    data_bytes,
    encode_delta,
    is_finite,
    measure,
    view_delta,
    wrong_data,
)
from aggregation.codecs.direction import Direction, direction_from, direction_of
from aggregation.codecs.shape import Codec
from aggregation.codecs.table import CODECS, DEFAULT_CODEC, CodecName, codec_named

__all__ = [
    "CODECS",
    "DEFAULT_CODEC",
    "Codec",
    "CodecName",
    "Delta",
    "Direction",
    "EncodedTensor",
    "Measured",
    "accumulate_into",
    "codec_named",
    "cosine",
    "data_bytes",
    "direction_from",
    "direction_of",
    "encode_delta",
    "is_finite",
    "measure",
    "view_delta",
    "wrong_data",
]
