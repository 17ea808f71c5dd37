"""Whether one update of a model fits into a record, and every step that makes it fit where something does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from aggregation.codecs import CODECS, data_bytes
from aggregation.errors import UsageProblem
from aggregation.policy import NEWEST, UPDATE_BYTES_LIMIT
from producers.sdk.updates import record_bytes_max, update_bytes_max

if TYPE_CHECKING:
    from collections.abc import Collection

    from aggregation.layout import Layout
    from aggregation.policy import Policy
    from backends.settings import Settings

_OF_V1: Final = frozenset({"int8", "float32"})
"""The codecs that a policy of the first format may name."""
_SAMPLE: Final = 1 << 10
_MILLION: Final = 10**6


def check_update_size(layout: Layout, policy: Policy, settings: Settings) -> None:
    """Refuse a model whose updates could not be published: UsageProblem FLV-2404, with all that has to be changed."""
    needed = update_bytes_max(layout, policy.updates.codecs)
    limit = record_bytes_max(policy, settings.message_bytes_max)
    if needed <= limit:
        return
    which = "policy's updates.bytes_max" if limit == policy.updates.bytes_max else "broker's record limit"
    widest = max(policy.updates.codecs, key=_width)
    raise UsageProblem(
        "FLV-2404",
        f"one update of {layout.parameters} parameters takes up to {needed} bytes in {widest}, the {which} is {limit}",
        where=f"a record holds at most {UPDATE_BYTES_LIMIT} bytes (64 MiB): {_in_parameters()}",
        hint=_way(layout, policy, settings),
    )


def _way(layout: Layout, policy: Policy, settings: Settings) -> str:
    """The way with the fewest steps, each on a line of its own: with the policy's codecs, or a narrower one alone."""
    own = tuple(policy.updates.codecs)
    narrower = sorted(
        (name for name in CODECS if _width(name) < max(map(_width, own))), key=_width, reverse=True
    )
    sized = [(codecs, update_bytes_max(layout, codecs)) for codecs in (own, *((name,) for name in narrower))]
    ways = [
        _steps(policy, settings, codecs, needed) for codecs, needed in sized if needed <= UPDATE_BYTES_LIMIT
    ]
    if not ways:
        return "no codec makes it small enough: use a smaller model, or train only a part of it (docs/own-task.md)"
    fewest = min(map(len, ways))
    return "\n  then ".join(next(way for way in ways if len(way) == fewest))


def _steps(policy: Policy, settings: Settings, codecs: Collection[str], needed: int) -> list[str]:
    changed = []
    if set(codecs) != set(policy.updates.codecs):
        changed.append(f"codecs = {json.dumps(list(codecs))}")
    if needed > policy.updates.bytes_max:
        changed.append(f"bytes_max = {needed}")
    later = [f'format = "{NEWEST}"'] if policy.format != NEWEST and not _OF_V1.issuperset(codecs) else []
    lines = "".join(f"\n    {line}" for line in (*later, "[updates]", *changed))
    steps = (
        [f"write into the policy (the file of `--policy`, or POLICY in the task file):{lines}"]
        if changed
        else []
    )
    if needed > settings.message_bytes_max:
        steps.append(f"let the broker take as much: `fluvial up --update-bytes-max {needed}`")
    return steps


def _in_parameters() -> str:
    known = sorted(CODECS, key=_width, reverse=True)
    return ", ".join(
        f"about {UPDATE_BYTES_LIMIT * _SAMPLE // _width(name) // _MILLION} million parameters in {name}"
        for name in known
    )


def _width(codec: str) -> int:
    return data_bytes(codec, _SAMPLE)
