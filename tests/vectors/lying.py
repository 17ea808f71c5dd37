"""Random logs of windows of edges, honest ones and ones with any number changed: for folds to be compared on."""

from __future__ import annotations

import random
from functools import partial
from typing import Any, Final

import numpy as np

from schemas.edges import unpacked
from tests.factories import delta, devices, model_sha
from tests.vectors.below import Chain, chain_of, with_edges
from tests.vectors.replaying import Log
from tests.vectors.shares import barrier, update

NUMBERS: Final = ("accepted", "weight_total", "staleness_total", "staleness_max", "update_bytes", "version")
ODD: Final = (-1, 0, 1, 2, 3, 65_535, 65_536, (1 << 63) - 1)


def changed(rng: random.Random, record: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """One thing or two that a lying edge says otherwise; {} as often as not."""
    made: dict[str, Any] = {}
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        match rng.randrange(7):
            case 0:
                made[rng.choice(NUMBERS)] = rng.choice(ODD)
            case 1 if fields["bases"]:
                rows = [dict(one) for one in fields["bases"]]
                rng.choice(rows)[rng.choice(["base", "accepted", "weight"])] = rng.choice(ODD)
                made["bases"] = rows
            case 2 if fields["bases"]:  # another base, and all that follows of it
                base, one = rng.choice([0, 1, 2, 3]), fields["bases"][-1]
                late = fields["version"] - base
                made["bases"] = [
                    one | {"base": base, "accepted": fields["accepted"], "weight": fields["weight_total"]}
                ]
                made |= {"staleness_total": late * fields["accepted"], "staleness_max": max(0, late)}
            case 3:
                made["counts"] = dict(fields["counts"]) | {
                    rng.choice(["aggregated", "accepted"]): rng.randrange(4)
                }
            case 4:
                name = rng.choice(["norms", "shares", "cosines"])
                count = rng.choice([104, 105, 420, 840, 2520])
                made[name] = [{"bucket": rng.choice([-65, 0, 1, 2, 8, 9000]), "count": count}]
            case 5 if record["sums"]:
                sums = unpacked(record["sums"], record["width"])
                factor = rng.choice([1, 2, 3, 4, 100])
                made["sums"] = np.clip(sums, -(1 << 50), 1 << 50) * factor
            case _:
                made["policy_sha256"] = rng.choice([fields["policy_sha256"], model_sha(3)])
    return made


def random_log(seed: int, length: int = 60) -> Log:
    """Two edges and the region's own devices, over some versions."""
    rng = random.Random(seed)
    seconds = rng.choice([0, 600.0])
    policy = with_edges(
        edges={"updates_max": rng.choice([4, 9, 30])},
        shares={"per_version": rng.choice([0, 1]), "saved_max": 2},
        staleness={"versions_max": 2, "seconds_max": seconds},
        window={"updates_max": 12, "records_max": 40},
    )
    log, names, version = Log(policy), devices(12), 0
    log.keep(policy.canonical())
    chains = {edge: chain_of(policy, *names[:2], edge=edge) for edge in ("eu.e1", "eu.e2")}
    for _ in range(length):
        chain = chains[rng.choice(["eu.e1", "eu.e2"])]
        match rng.randrange(10):
            case 0:
                version += 1
                log.add(barrier(version, policy, floor=max(0, version - 4) if rng.random() < 0.2 else 0))
            case 1:
                log.add(update(rng.choice(names), max(0, version - rng.randrange(3)), delta(5)))
            case 2:
                _fold(chain, rng, names, version)
            case _:
                lie = partial(changed, rng, chain.edge.records[-1])
                log.add(chain.send(lie, moves=rng.random() < 0.97))
    return log


def _fold(chain: Chain, rng: random.Random, names: list[str], version: int) -> None:
    """The edge folds a window of the newest version, of several bases."""
    if chain.edge.site.state.version < version:
        chain.edge.to(version)
    at = chain.edge.site.state.version
    for base in sorted({max(0, at - late) for late in (0, 1, 2)}):
        chain.edge.updates(*rng.sample(names, 2), base=base)
    chain.edge.close()
