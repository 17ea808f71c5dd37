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
from aggregation.codecs.direction import Direction, Peaks, direction_between, direction_from, direction_of
from aggregation.codecs.shape import Codec
from aggregation.codecs.table import CODECS, DEFAULT_CODEC, CodecName, codec_named
from aggregation.codecs.values import (
    VALUE_BYTES,
    accumulate_values_into,
    are_finite,
    below_zero,
    encode_update,
    encode_values,
    mean_of_values,
    update_of,
    view_values,
    wrong_values,
)

__all__ = [
    "CODECS",
    "DEFAULT_CODEC",
    "VALUE_BYTES",
    "Codec",
    "CodecName",
    "Delta",
    "Direction",
    "EncodedTensor",
    "Measured",
    "Peaks",
    "accumulate_into",
    "accumulate_values_into",
    "are_finite",
    "below_zero",
    "codec_named",
    "cosine",
    "data_bytes",
    "direction_between",
    "direction_from",
    "direction_of",
    "encode_delta",
    "encode_update",
    "encode_values",
    "is_finite",
    "mean_of_values",
    "measure",
    "update_of",
    "view_delta",
    "view_values",
    "wrong_data",
    "wrong_values",
]
