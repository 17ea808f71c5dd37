"""Which versions a window's updates answered, since ``fluvial/policy/v6``: what mixing needs (``server.mixing``)."""

from __future__ import annotations

from typing import NamedTuple


class Base(NamedTuple):
    """Of a window's accepted updates those that answered version ``base``: so many, of such a weight in 1/65536."""

    base: int
    accepted: int = 0
    weight: int = 0

    def plus(self, weight: int, accepted: int = 1) -> Base:
        """With so many updates more, which weigh ``weight`` together."""
        return Base(self.base, self.accepted + accepted, self.weight + weight)
