"""An edge below the tests' region: its log, folded from bytes, and what it publishes of its windows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from aggregation.fold.events import EdgeAggregate, WindowClosed
from aggregation.fold.state import initial
from aggregation.fold.transition import fold_into
from aggregation.regions import parent_of
from schemas.certificates import Role
from schemas.edges import edge_event, edge_record
from schemas.windows import encode_window
from tests.factories import task
from tests.factories.certificates import signer
from tests.factories.events import barrier, tick, update
from tests.factories.sites import Site, state_of
from tests.factories.task import LAYOUT, NOW_MS, REGION, TASK, model_sha

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggregation.layout import Layout
    from aggregation.policy import Policy
    from aggregation.reasons import Reason
    from schemas.envelope import Signer

EDGE = "eu.e1"


def edge_policy(**sections: Any) -> Policy:
    """A policy of v6 under which an edge's window may hold 16 updates."""
    return task.policy(format="fluvial/policy/v6", **({"edges": {"updates_max": 16}} | sections))


def edge_signer(edge: str = EDGE, name: str = "box-1", **spoiled: Any) -> Signer:
    """An edge's signer, vouched for by the region's CA."""
    return signer(edge, Role.EDGE, name, **({"issuer": REGION} | spoiled))


def edge_site(rules: Policy, edge: str = EDGE, layout: Layout = LAYOUT) -> Site:
    """An edge's log, empty."""
    return Site(
        initial(
            task=TASK,
            region=edge,
            partition=0,
            partitions=1,
            layout=layout,
            policy=rules,
            model_sha256=model_sha(0),
        )
    )


@dataclass
class Edge:
    """An edge's log that is folded, and the records of its windows in order, as ``edge_record`` gives them."""

    rules: Policy
    name: str = EDGE
    layout: Layout = LAYOUT
    site: Site = field(init=False)
    records: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.site = edge_site(self.rules, self.name, self.layout)

    def fold(self, event: Any) -> None:
        """Fold one event; keep what it closes."""
        state = self.site.state
        for effect in fold_into(state, state.next_offset, event):
            if isinstance(effect, WindowClosed):
                encoded = encode_window(state, effect)
                model = state.models.get(encoded.aggregate.version, model_sha(encoded.aggregate.version))
                self.records.append(edge_record(encoded.aggregate, encoded.payload, model, effect.sums))
        state.validate()

    def updates(self, *devices: str, base: int = 0, **changed: Any) -> None:
        """Updates of devices below this edge."""
        for number, device in enumerate(devices):
            fields: dict[str, Any] = {
                "region": self.name,
                "seed": number,
                "base": base,
                "layout": self.layout,
            }
            self.fold(update(device, **(fields | changed)))

    def close(self) -> None:
        """Close the open window by a Tick."""
        self.fold(tick(self.site.state.window.first_offset, region=self.name))

    def to(self, version: int) -> None:
        """A barrier of the region above."""
        self.fold(barrier(version, self.rules, region=parent_of(self.name)))

    def window(self, *devices: str, base: int = 0, **changed: Any) -> EdgeAggregate:
        """The event of a window with updates of these devices."""
        self.updates(*devices, base=base, **changed)
        self.close()
        return self.event()

    def event(self, number: int = -1, **changed: Any) -> EdgeAggregate:
        """What the log above reads of a window, authenticated; with fields of its record changed."""
        signed = edge_signer(self.name)
        found = edge_event(
            self.records[number] | changed, self.name, "e1", signed.certificate[-64:], self.site.trust.rules
        )
        assert isinstance(found, EdgeAggregate), found
        return EdgeAggregate(
            **{name: getattr(found, name) for name in found.__slots__}
            | {"record_bytes": 900, "timestamp_ms": NOW_MS}
        )

    def bytes(self, number: int = -1, *, by: Signer | None = None, **changed: Any) -> bytes:
        """The signed record of a window."""
        return (by or edge_signer(self.name)).sign("EdgeAggregate", self.records[number] | changed)


def log_above(version: int = 0, layout: Layout = LAYOUT) -> Site:
    """The log above an edge, at this version, under ``edge_policy()``."""
    rules = edge_policy()
    site = Site(state_of(rules, layout=layout))
    for number in range(1, version + 1):
        site.fold(barrier(number, rules))
    return site


def reason_of(site: Site, event: EdgeAggregate) -> Reason:
    """Why the log above says what it says of a window."""
    return site.fold(event).because.reason


def sums_with(change: Callable[[Any], Any]) -> Callable[[EdgeAggregate], EdgeAggregate]:
    """A window whose sums int64[P] are ``change`` of what they are."""
    return lambda event: replace(event, sums=change(np.array(event.sums)))
