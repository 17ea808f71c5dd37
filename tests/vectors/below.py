"""Vectors of logs that hear edges, of an edge's own log, and of policies to which there are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aggregation.fold.events import Update
from aggregation.layout import Layout
from aggregation.partitioning import partition_of
from aggregation.policy import Policy
from schemas import avro
from schemas.certificates import Role
from schemas.checkpoints import encode_sums
from schemas.edges import edge_record, packed, unpacked
from schemas.envelope import Signer
from schemas.objects import sha256_hex
from schemas.windows import aggregate_of
from tests import factories
from tests.factories import (
    BUFFERED,
    EDGE,
    LAYOUT,
    Edge,
    delta,
    device_signer,
    devices,
    edge_signer,
    model_sha,
    operator_signer,
    revoke_bytes,
    signer,
    tick_bytes,
    update_bytes,
)
from tests.vectors.learning import V5
from tests.vectors.logs import serial_of
from tests.vectors.replaying import Log, case_of
from tests.vectors.shares import barrier, update
from tests.vectors.varied import VARIED, moves, varied, varied_tensors

Fields = dict[str, Any]
Ints = npt.NDArray[np.int64]
SECOND: Final = "eu.e2"
DEEP: Final = f"{EDGE}.hall"
BY_WINDOW: Final = {"window": {"updates_max": 60, "records_max": 200}}


def with_edges(**sections: Any) -> Policy:
    """A policy of v6 under which an edge may have 20 updates a version."""
    return varied(**(BY_WINDOW | {"edges": {"updates_max": 20}} | sections))


def by_worker(region: str) -> Signer:
    """A worker of an edge's own log."""
    return signer(region, Role.WORKER, "w-1", issuer="eu")


def by_device(device: str, region: str) -> Signer:
    """A device below an edge."""
    return device_signer(device, region, issuer="eu")


@dataclass
class Chain:
    """What an edge sends upward: windows that follow each other, also where it lies about what is in them."""

    edge: Edge
    sequence: int = 0
    previous_sha256: str = ""

    def send(
        self, change: Callable[[Fields], Fields] | None = None, *, moves: bool = True, **said: Any
    ) -> bytes:
        """The record of a window: the edge's last one as if it were the next, its aggregate changed, then ``said``.

        ``change`` gets the aggregate's fields and gives those that differ; ``sums`` are the window's, int64[n].
        ``moves``: the next one follows it.
        """
        record = self.edge.records[-1]
        fields = avro.decode(record["aggregate"])[1]
        fields |= {"sequence": self.sequence, "previous_sha256": self.previous_sha256}
        sums = unpacked(record["sums"], record["width"]) if record["sums"] else None
        changed = {} if change is None else change(fields)
        if "sums" in changed:
            sums = changed.pop("sums")
            changed["sum_sha256"] = "" if sums is None else sha256_hex(encode_sums(sums))
        payload = avro.encode_as("RegionalAggregate", 4, fields | changed)
        made = edge_record(aggregate_of(fields | changed, payload), payload, record["model_sha256"], sums)
        made |= {"region": record["region"], "edge": record["edge"]}
        if moves:
            self.sequence, self.previous_sha256 = self.sequence + 1, sha256_hex(payload)
        by = said.pop("by", None) or edge_signer(self.edge.name)
        return by.sign("EdgeAggregate", made | said)


def chain_of(policy: Policy, *names: str, edge: str = EDGE, layout: Layout = LAYOUT, **changed: Any) -> Chain:
    """An edge whose window has an update of each of these devices."""
    one = Edge(policy, edge, layout)
    one.updates(*names, **changed)
    one.close()
    return Chain(one)


def heard() -> Log:
    """Windows of edges beside updates of the region; late ones, full ones, empty ones, in and out of their turn."""
    one = with_edges(window={"updates_max": 9}, shares={"per_version": 2, "saved_max": 2})
    log, names, value = Log(one), devices(20), delta(5)
    log.keep(one.canonical())
    first, second = chain_of(one, *names[:3]), chain_of(one, *names[3:5], edge=SECOND, codec="float32")
    log.add(first.send(), "the first window of an edge: three updates")
    log.add(update(names[9], 0, value), "an update of the region itself")
    log.add(second.send(), "of another edge")
    log.add(
        first.send(moves=False, by=edge_signer(EDGE, "box-2")), "the next one, by another key of the edge"
    )
    log.add(first.send(moves=False), "the same again: a copy has no turn")
    first.sequence += 1
    log.add(update(names[10], 0, value, "float32"), "with the windows' updates too many: closes the window")
    log.add(first.send(lambda _: {"sequence": 7}, moves=False), "the eighth: its place is the third's")
    log.add(first.send(moves=False), "it names the window before the one before")
    first.previous_sha256 = previous(first)
    log.add(first.send(), "in its turn")
    log.add(barrier(1, one), "closes the window")
    log.add(first.send(), "a version late: it weighs less")
    log.add(second.send(), "a version late")
    log.add(barrier(2, one), "closes the window")
    late = chain_of(one, *names[:3])
    late.edge.to(1)
    late.edge.updates(*names[5:7], base=1)
    late.edge.updates(*names[7:8], base=0)
    late.edge.close()
    late.sequence, late.previous_sha256 = first.sequence, first.previous_sha256
    log.add(
        late.send(), "a window of two bases, a version late, with an update that was a version late in it"
    )
    log.add(late.send(nothing), "a window that accepted nothing: it only moves the edge's place")
    log.add(late.send(lambda _: {"version": 0}), "of a version that it was not folded at, says its model")
    log.add(late.send(lambda _: {"version": 3}), "of a version to come")
    log.add(late.send(), "the next one: what was refused from there on had its turn")
    log.add(tick_bytes(13), "closes the window: the state has both edges")
    return log


def previous(chain: Chain) -> str:
    """The hash of the window that would have stood before the next one."""
    fields = avro.decode(chain.edge.records[-1]["aggregate"])[1]
    first = fields | {"sequence": 0, "previous_sha256": ""}
    before = sha256_hex(avro.encode_as("RegionalAggregate", 4, first))
    second = fields | {"sequence": 1, "previous_sha256": before}
    return sha256_hex(avro.encode_as("RegionalAggregate", 4, second))


def nothing(fields: Fields) -> Fields:
    """A window in which a record was refused."""
    empty = {"accepted": 0, "weight_total": 0, "staleness_total": 0, "staleness_max": 0, "update_bytes": 0}
    lists = {"norms": [], "cosines": [], "shares": [], "bases": [], "buckets": [{"accepted": 0, "weight": 0}]}
    return empty | lists | {"counts": {"duplicate": 1}, "sums": None, "version": fields["version"]}


def lies() -> Log:
    """What no log comes to, one by one; each window follows the one before, for its place moves."""
    one = with_edges(edges={"updates_max": 4}, shares={"per_version": 1, "saved_max": 2})
    log, names = Log(one), devices(9)
    log.keep(one.canonical())
    chain = chain_of(one, *names[:3])
    fields = avro.decode(chain.edge.records[-1]["aggregate"])[1]
    weight = fields["weight_total"]

    def base(number: int, accepted: int, weight: int) -> Fields:
        return {"base": number, "accepted": accepted, "weight": weight}

    def rows(name: str, *pairs: tuple[int, int]) -> Fields:
        return {name: [{"bucket": bucket, "count": count} for bucket, count in pairs]}

    tried: dict[str, Fields] = {
        "too many for a version": {"accepted": 5},
        "fewer than none": {"accepted": -1},
        "a weight below 0": {"weight_total": -1},
        "a count below 0": {"counts": {"accepted": 3, "duplicate": -1}},
        "more than it counts": {"counts": {"accepted": 2}},
        "fewer than it counts, though there are windows below": {"counts": {"accepted": 4, "aggregated": 1}},
        "a base above its version": {"bases": [base(1, 3, weight)]},
        "a base below 0": {"bases": [base(-1, 3, weight)]},
        "a base twice": {"bases": [base(0, 1, 1), base(0, 2, weight - 1)]},
        "a base without updates": {"bases": [base(0, 0, weight)]},
        "a base without weight": {"bases": [base(0, 3, 0)], "weight_total": 0},
        "heavier than updates are": {"bases": [base(0, 3, 3 * 65536 + 1)], "weight_total": 3 * 65536 + 1},
        "bases of other updates": {"bases": [base(0, 2, weight)]},
        "bases of another weight": {"bases": [base(0, 3, weight - 1)]},
        "a staleness that its bases have not": {"staleness_total": 1},
        "a largest staleness that they have not": {"staleness_max": 1},
        "two buckets": {"buckets": [{"accepted": 3, "weight": weight}, {"accepted": 0, "weight": 0}]},
        "a bucket of another weight": {"buckets": [{"accepted": 3, "weight": weight - 1}]},
        "norms out of order": rows("norms", (8000, 840), (7999, 840)),
        "a norm that is no number": rows("norms", (16376, 840)),
        "a norm that counts too little": rows("norms", (8000, 104)),
        "a norm that counts too much": rows("norms", (8000, 3 * 840 * 64 + 1)),
        "more norms than updates": rows("norms", *((8000 + n, 105) for n in range(4))),
        "a cosine above 1": rows("cosines", (65, 105)),
        "cosines that count too much": rows("cosines", (64, 3 * 840 + 1)),
        "a share of no update": rows("shares", (0, 840)),
        "a share that counts otherwise": rows("shares", (1, 841)),
        "shares of other updates": rows("shares", (1, 840)),
        "shares of as many, twice as often": rows("shares", (2, 3 * 420)),
    }
    for note, changed in tried.items():
        log.add(chain.send(lambda _, changed=changed: dict(changed)), note)  # type: ignore[misc]
    total = unpacked(chain.edge.records[-1]["sums"], chain.edge.records[-1]["width"])

    def sums(values: Ints, **more: Any) -> Callable[[Fields], Fields]:
        return lambda _: {"sums": values, **more}

    log.add(chain.send(sums(total[:-1])), "a sum too few")
    log.add(chain.send(sums(np.append(total, 0))), "a sum too many")
    log.add(chain.send(sums(total * 1000)), "longer than updates are")
    log.add(chain.send(sums(np.full_like(total, -(1 << 63)))), "as long as can be said")
    limit = longest(3, weight, total.size, 0.5)
    log.add(chain.send(sums(evenly(total.size, limit))), "one unit longer than may be, all of them together")
    log.add(chain.send(sums(evenly(total.size, limit - 1))), "as long as may be: counts")
    log.add(barrier(1, one), "a version more")
    log.add(chain.send(lambda _: {"counts": {"aggregated": 1}}), "of windows below it alone: counts")
    log.add(chain.send(), "too many at this version")
    log.add(barrier(2, one), "a version more")
    log.add(chain.send(), "counts")
    other = with_edges(edges={"updates_max": 5})
    log.keep(other.canonical())
    log.add(barrier(3, other), "another policy")
    log.add(chain.send(), "folded under the policy of before")
    log.add(chain.send(lambda _: {"policy_sha256": other.sha256}), "counts")
    log.add(tick_bytes(len(log.records) - 2), "closes the window")
    return log


def longest(accepted: int, weight: int, size: int, clip: float) -> int:
    """The least length of sums that so many updates do not come to where all are as long, by the rule's own words."""
    weighs = min(weight + 8 * accepted, accepted << 16)
    reach = -(-weighs * int(clip * 2**32) // 65536)
    whole, length = reach + reach // 2**50 + 1, 0
    root = int(np.floor(np.sqrt(size))) + 1
    low, high = 0, 1 << 50
    while low < high:
        length = (low + high) // 2
        k = max(0, length.bit_length() - 24)
        bound = whole + (129 * accepted + 2**k) * root
        if size * (length >> k) ** 2 * 4**k > bound**2:
            high = length
        else:
            low = length + 1
    return low


def evenly(size: int, length: int) -> Ints:
    """Sums that are all as long."""
    return np.full(size, length, dtype=np.int64)


def unreadable() -> Log:
    """Records that say no window; and who may sign one, for whom, where."""
    one = with_edges()
    log, names = Log(one, partitions=2), devices(9)
    log.keep(one.canonical())
    home, away = edges_at(2)
    chain, elsewhere = chain_of(one, *names[:2], edge=home), chain_of(one, names[0], edge=away)
    record = chain.edge.records[-1]
    sums, width = unpacked(record["sums"], record["width"]), record["width"]
    older = avro.decode(record["aggregate"])[1]
    del older["bases"]
    told: dict[str, Fields] = {
        "no window": {"aggregate": b"junk"},
        "another record": {"aggregate": avro.encode("Tick", avro.decode(tick_payload())[1])},
        "a window of an older version": {"aggregate": avro.encode_as("RegionalAggregate", 3, older)},
        "a window that is cut short": {"aggregate": record["aggregate"][:-1]},
        "a window and a byte": {"aggregate": record["aggregate"] + b"\0"},
        "no width": {"width": 0},
        "nine bytes": {"width": 9, "sums": bytes(9 * sums.size)},
        "more bytes than it needs": {"width": width + 1, "sums": packed(sums, width + 1)},
        "no whole number of sums": {"sums": record["sums"][:-1]},
        "no sums, though it accepted something": {"sums": b""},
        "other sums": {"sums": bytes([record["sums"][0] ^ 1]) + record["sums"][1:]},
        "an edge that is another's": {"edge": "eu.other" * 20},
        "a region that it is not below": {"region": "us" * 40},
        "the edge itself as the region": {"region": home},
        "another task": {"task": "other"},
    }
    for note, said in told.items():
        log.add(chain.send(moves=False, **said), note)
    log.add(chain.send(lambda _: {"region": "eu"}, moves=False), "a window of the region's own log")
    log.add(chain.send(lambda _: {"partition": 1}, moves=False), "a window of a partition that no edge has")
    log.add(chain.send(lambda _: {"task": "other"}, moves=False), "a window of another task")
    log.add(chain.send(nothing, moves=False, sums=b"\0"), "sums of a window that accepted nothing")
    log.add(chain.send(nothing, moves=False, width=2), "a width of none")
    log.add(elsewhere.send(), "of an edge whose partition is another")
    certificates: dict[str, Signer] = {
        "of a device": by_device(names[0], home),
        "of a worker": by_worker(home),
        "of an operator": operator_signer(),
        "by another CA": edge_signer(home, issuer="us"),
        "below control": signer("control.e1", Role.EDGE, "box", issuer="control"),
        "below a region that there is not": signer("asia.e1", Role.EDGE, "box", issuer="eu"),
        "of control": signer("control", Role.EDGE, "box"),
        "of the region itself": signer("eu", Role.EDGE, "box"),
        "below another region": signer("us.e1", Role.EDGE, "box", issuer="us"),
    }
    for note, by in certificates.items():
        log.add(chain.send(moves=False, by=by), f"with a certificate {note}")
    by = edge_signer(home)
    log.add(by.sign_payload("EdgeAggregate", avro.schema_for("EdgeAggregate").header + b"\x02"), "cut short")
    log.add(barrier(1, one, by=by), "a barrier that an edge signed: forged")
    below = update_bytes(names[1], by=by_device(names[1], home), region=home)
    log.add(below, "an update of a device below the edge, in the log of the region")
    log.add(tick_bytes(0, by=by_worker(home), region=home), "a tick of the edge's own log")
    log.add(barrier(1, one, region=home), "a barrier that names the edge")
    log.add(update_bytes(names[2], by=by_device(names[2], "asia.e1"), region="asia.e1"), "below no region")
    log.add(chain.send(), "counts")
    log.add(revoke_bytes("", f"{serial_of(by.certificate):x}"), "bars the edge's certificate")
    log.add(chain.send(moves=False), "by a revoked certificate")
    log.add(chain.send(by=edge_signer(home, "box-2")), "by another one of the edge")
    log.add(revoke_bytes(home), "bars the edge")
    log.add(chain.send(moves=False, by=edge_signer(home, "box-2")), "of a revoked edge")
    log.add(tick_bytes(len(log.records) - 2), "of another window")
    log.add(tick_bytes(0), "closes the window")
    return log


def tick_payload() -> bytes:
    """A Tick without an envelope."""
    fields = {"task": "digits", "region": "eu", "partition": 0, "window_first_offset": 0}
    return avro.encode("Tick", fields)


def varied_update(device: str, number: int) -> Update:
    """An update with buffers and control variates, as an edge has authenticated it."""
    tensors = varied_tensors(moves(number, 0.5), "int8")
    return factories.update(device, region=EDGE, seed=number, tensors=tensors, layout=VARIED)


def sections() -> Log:
    """Buffers and control variates of edges: added where nothing is late, bounded each by its own rule."""
    one = with_edges(control={"norm_clip": 0.2}, staleness={"versions_max": 1, "seconds_max": 0})
    log, names = Log(one, VARIED), devices(9)
    log.keep(one.canonical())
    chain = Chain(Edge(one, layout=VARIED))
    for number, name in enumerate(names[:3]):
        chain.edge.fold(varied_update(name, number))
    chain.edge.close()
    total = unpacked(chain.edge.records[-1]["sums"], chain.edge.records[-1]["width"])
    size, running = VARIED.trainable.parameters, 10 * VARIED.buffers.parameters

    def changed(element: int, digit: int, value: int) -> Callable[[Fields], Fields]:
        made = total.copy()
        made[size + 10 * element : size + 10 * element + 10] = 0
        made[size + 10 * element + digit] = value
        return lambda _: {"sums": made}

    def varies(factor: int) -> Callable[[Fields], Fields]:
        made = total.copy()
        made[size + running :] *= factor
        return lambda _: {"sums": made}

    log.add(chain.send(), "three updates: counts")
    log.add(chain.send(changed(0, 3, (3 << 32) + 1)), "a digit that is too large")
    log.add(chain.send(changed(0, 3, -(3 << 32))), "a digit as large as may be: counts")
    log.add(chain.send(changed(1, 9, 1 << 33)), "a mean beyond all numbers")
    log.add(chain.send(changed(4, 0, -1)), "a variance below 0")
    log.add(chain.send(changed(4, 0, 0)), "a variance of 0: counts")
    log.add(chain.send(varies(1000)), "control variates that are too long")
    log.add(chain.send(varies(0)), "control variates of 0: counts")
    log.add(barrier(1, one), "closes the window")
    log.add(chain.send(), "late, with buffers")
    log.add(chain.send(nothing), "late, of nothing: there are buffers")
    log.add(chain.send(varies(1000)), "late, and too long: that is said first")
    log.add(tick_bytes(len(log.records) - 3), "closes the window")
    return log


def own() -> Log:
    """An edge's own log: barriers of those above it, devices and ticks of its own, an edge below it."""
    one, older = with_edges(), varied(**BY_WINDOW)
    log, names, value = Log(one, region=EDGE), devices(9), delta(5)
    for each in (one, older):
        log.keep(each.canonical())
    deep = chain_of(one, *names[5:7], edge=DEEP)

    def sent(name: str, base: int) -> bytes:
        return update(name, base, value, by=by_device(name, EDGE), region=EDGE)

    log.add(sent(names[0], 0), "a device of the edge")
    log.add(update(names[1], 0, value), "a device of the region")
    log.add(deep.send(), "an edge below this one")
    log.add(chain_of(one, names[8], edge=SECOND).send(), "an edge beside it")
    log.add(tick_bytes(0), "a tick of the region's log")
    log.add(revoke_bytes(names[2]), "a Revoke, copied from above")
    log.add(sent(names[2], 0), "revoked")
    for region in ("us", "e", "eu.", "eu.e", DEEP):
        log.add(barrier(1, one, region=region), f"a barrier of {region}")
    log.add(barrier(1, one), "a barrier of the region: closes the window")
    log.add(barrier(1, one), "again: changes nothing")
    log.add(sent(names[3], 1), "answers it")
    log.add(barrier(2, older, region=EDGE), "a barrier of the edge's own name brings a policy without edges")
    log.add(sent(names[3], 2), "there are no such devices then")
    log.add(deep.send(), "nor such records")
    log.add(barrier(3, one), "a barrier of the region is another's now")
    log.add(tick_bytes(len(log.records) - 2, by=by_worker(EDGE), region=EDGE), "nor such workers")
    return log


def without() -> Log:
    """Policies that know no edges: of v6 without any, and of v5, behind which none was ever heard."""
    one, none, older = with_edges(), varied(**BY_WINDOW), varied(**BY_WINDOW, format=V5)
    log, names = Log(none), devices(9)
    for each in (one, none, older):
        log.keep(each.canonical())
    chain, by = chain_of(one, *names[:2]), edge_signer(EDGE)

    def tried(version: int, when: str) -> None:
        header = avro.schema_for("EdgeAggregate").header
        log.add(header, f"no envelope, but a window of an edge {when}")
        log.add(by.sign_payload("EdgeAggregate", header), f"one in an envelope {when}")
        log.add(chain.send(moves=False), f"a whole one {when}")
        log.add(barrier(version, one, by=by), f"a barrier by an edge {when}")
        below = update_bytes(names[3], by=by_device(names[3], EDGE), region=EDGE)
        log.add(below, f"a device below an edge {when}")

    tried(1, "without edges")
    log.add(barrier(1, one), "edges from here on")
    tried(2, "with edges")
    log.add(chain.send(lambda _: {"policy_sha256": one.sha256}), "a copy")
    log.add(barrier(2, none), "closes the window; no edges, but the state knows how far one came")
    log.add(chain.send(moves=False), "unknown")
    log.add(update(names[4], 2, delta(1)), "counts")
    log.add(barrier(3, one), "closes the window")
    log.add(chain.send(), "goes on where it was")
    log.add(barrier(4, older), "v5: what was heard is forgotten")
    log.add(update(names[4], 4, delta(1)), "counts")
    log.add(barrier(5, one), "v6 again; closes the window")
    log.add(chain.send(moves=False), "the third: its place is the first's")
    log.add(tick_bytes(len(log.records) - 2), "closes the window")
    return log


LOGS: Final[dict[str, Callable[[], Log]]] = {
    "windows of edges": heard,
    "windows that no log comes to": lies,
    "no windows of edges": unreadable,
    "sections of edges": sections,
    "an edge's own log": own,
    "without edges": without,
}
"""Each by its name."""


def check_case() -> dict[str, Any]:
    """The order of the checks of a window: each fails one first, and where it can a later one as well."""
    one = with_edges(edges={"updates_max": 4}, staleness={"versions_max": 1, "seconds_max": 0})
    rounds = with_edges(edges={"updates_max": 4}, buffer={"mode": "rounds"})
    log, names, rows = Log(one, BUFFERED, partitions=2), devices(9), list[Fields]()
    for each in (one, rounds):
        log.keep(each.canonical())
    home, away = edges_at(2)
    chain = chain_of(one, *names[:2], edge=home, layout=BUFFERED)
    elsewhere = chain_of(one, names[0], edge=away, layout=BUFFERED)
    other = chain_of(one, names[0], edge="us.e1", layout=BUFFERED)
    by = edge_signer("us.e1", issuer="us")

    def probe(number: int, value: bytes, *also: int) -> None:
        rows.append({"offset": len(log.records), "check": number, "also": list(also)})
        log.add(value, f"fails check {number}")

    def moved(number: int, change: Fields, *also: int) -> None:
        probe(number, chain.send(lambda _: dict(change)), *also)

    def held(number: int, change: Fields, *also: int, **said: Any) -> None:
        probe(number, chain.send(lambda _: dict(change), moves=False, **said), *also)

    strange = {"policy_sha256": model_sha(9)}
    held(58, {}, 59, edge="eu.other", width=0)
    held(59, {}, 61, width=0, task="other")
    probe(61, other.send(moves=False, by=by, task="other"), 62)
    probe(62, other.send(lambda _: {"partition": 1}, moves=False, by=by), 64)
    probe(63, elsewhere.send(lambda _: {"partition": 1}, moves=False), 64)
    probe(76, chain.send())
    held(64, {"sequence": 0, "partition": 1}, 65)
    held(65, {"sequence": 0, "version": 9}, 67)
    held(66, {"previous_sha256": model_sha(9), "version": 9}, 67)
    moved(67, {"version": 9} | strange, 71)
    late = chain.edge.records[-1] | {"model_sha256": model_sha(0)}
    probe(70, chain.send(lambda _: dict(strange), model_sha256=model_sha(9)), 71)
    moved(71, strange | {"accepted": 5}, 72)
    moved(72, {"accepted": 5}, 73)
    moved(72, {"accepted": (1 << 63) - 1}, 73)
    log.add(barrier(1, one), "a version more")
    moved(73, {"bases": []}, 75)
    total = unpacked(late["sums"], late["width"])
    long = total.copy()
    long[: BUFFERED.trainable.parameters] *= 10_000
    probe(74, chain.send(lambda _: {"sums": long}), 75)
    probe(75, chain.send())
    log.add(barrier(2, one), "and one more: the first is too old")
    moved(69, strange, 71)
    log.add(barrier(3, rounds), "in rounds")
    moved(68, strange, 71)
    log.add(revoke_bytes(home), "bars the edge")
    held(60, {}, 61, task="other")
    return case_of("windows of edges", log) | {"checks": rows}


def edges_at(partitions: int) -> tuple[str, str]:
    """An edge whose partition is 0, and one whose is 1."""
    names = [f"eu.e{number}" for number in range(20)]
    return tuple(  # type: ignore[return-value]
        next(name for name in names if partition_of(name, partitions) == at) for at in (0, 1)
    )
