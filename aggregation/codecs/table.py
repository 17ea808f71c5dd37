"""The codecs that there are, by name. The order is that in which people read them."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from aggregation.codecs.float32 import Float32
from aggregation.codecs.int4 import Int4
from aggregation.codecs.int8 import Int8
from aggregation.families import member_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregation.codecs.shape import Codec

CodecName = str
"""A name in ``CODECS``, once it was looked up; before that, whatever a record or a caller says."""

CODECS: Final[Mapping[str, Codec]] = MappingProxyType(
    {codec.name: codec for codec in (Int8(), Float32(), Int4())}
)
DEFAULT_CODEC: Final = Int8.name
"""What a device encodes by unless it is told otherwise."""


def codec_named(name: str) -> Codec:
    """The codec of this name; ``UsageProblem`` (FLV-2006) where there is none."""
    return member_of(CODECS, name, called="codec")
