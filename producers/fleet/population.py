"""Who is in a fleet: device ids and keys, who attacks, who misbehaves and when, how fast each is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from aggregation.codecs import CODECS, DEFAULT_CODEC, CodecName
from aggregation.errors import UsageProblem
from aggregation.selection import turns_after
from backends import keys
from producers.fleet.behaviours import ATTACKS, MISBEHAVIOURS, Behaviour
from producers.sdk.turns import check_somebody
from producers.sdk.updates import Author
from schemas.certificates import Role, cohort_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from producers.sdk.bases import Base
    from schemas.manifests import Genesis

DEVICES_MAX: Final = 100_000
ROUND_S_MAX: Final = 3600.0
SPEED_SPREAD_MAX: Final = 3.0
_PACE_STREAM, _CHOICE_STREAM = 1, 2


@dataclass(frozen=True, slots=True)
class FleetConfig:
    """What to drive. UsageProblem FLV-2505 when a value is out of bounds.

    devices: all of them; with ``parts_decide``, where the task's data has natural parts, one for each instead.
    attackers: the last so many, who attack every time, by sign-flip and noise in turn.
    misbehaving: so many before them break rules, each rule once at first, later in ``misbehaviour_rate`` of
    their rounds. alpha: Dirichlet concentration of the data split. round_s: median seconds of a device's round
    beside its training; speed_spread: sigma of the log-normal that makes devices faster or slower.
    codec: how honest updates are encoded. announcement_timeout_s: how long to wait for the very first model.
    Stop: after ``seconds_max`` seconds, once version ``version_max`` is announced to every region, or after
    ``updates_max`` records; None means never.
    """

    devices: int = 40
    attackers: int = 0
    misbehaving: int = 0
    seed: int = 0
    alpha: float = 1.0
    round_s: float = 0.2
    speed_spread: float = 0.5
    misbehaviour_rate: float = 0.25
    codec: CodecName = DEFAULT_CODEC
    announcement_timeout_s: float = 120.0
    seconds_max: float | None = None
    version_max: int | None = None
    updates_max: int | None = None
    parts_decide: bool = False

    def __post_init__(self) -> None:
        rules = {
            "devices": (1 <= self.devices <= DEVICES_MAX, f"1 to {DEVICES_MAX}"),
            "attackers": (0 <= self.attackers <= self.devices, "0 to devices"),
            "misbehaving": (
                0 <= self.misbehaving <= self.devices - self.attackers,
                "0 to devices - attackers",
            ),
            "seed": (0 <= self.seed < 1 << 32, "0 to 2**32 - 1"),
            "alpha": (math.isfinite(self.alpha) and self.alpha > 0, "a finite number above 0"),
            "round_s": (0 <= self.round_s <= ROUND_S_MAX, f"0 to {ROUND_S_MAX:g}"),
            "speed_spread": (0 <= self.speed_spread <= SPEED_SPREAD_MAX, f"0 to {SPEED_SPREAD_MAX:g}"),
            "misbehaviour_rate": (0 <= self.misbehaviour_rate <= 1, "0 to 1"),
            "codec": (self.codec in CODECS, " or ".join(CODECS)),
            "announcement_timeout_s": (self.announcement_timeout_s > 0, "above 0"),
            "seconds_max": (self.seconds_max is None or self.seconds_max > 0, "above 0"),
            "version_max": (self.version_max is None or self.version_max >= 0, "0 or more"),
            "updates_max": (self.updates_max is None or self.updates_max >= 1, "1 or more"),
        }
        for name, (holds, bound) in rules.items():
            if not holds:
                raise UsageProblem(
                    "FLV-2505",
                    f"fleet setting {name} = {getattr(self, name)!r} is out of bounds: it has to be {bound}",
                    hint="see `fluvial fleet --help`",
                )


@dataclass(slots=True)
class Member:
    """One device of a fleet. ``pace`` multiplies the median round time; ``rounds`` counts what it has done.

    ``failures``: how many of its rounds have failed since the last that did not. ``asked``: the version and turn for
    which it has drawn its lot.
    """

    index: int
    author: Author
    pace: float
    random: np.random.Generator
    rounds: int = 0
    last_base: int = -1
    failures: int = 0
    asked: tuple[int, int] = (-1, -1)

    @property
    def training_seed(self) -> int:
        """The seed of its local training: another for each device and each fleet seed."""
        return (self.author.seed << 20) + self.index

    def round_seconds(self, config: FleetConfig) -> float:
        """How long its next round takes."""
        return config.round_s * self.pace * float(self.random.uniform(0.8, 1.2))


def populate(
    genesis: Genesis,
    keys_folder: Path,
    config: FleetConfig,
    ids: Sequence[str] = (),
    keeping: keys.Keeping = keys.IN_PLAIN_FILES,
    *,
    cohorts: Sequence[str] = (),
) -> list[Member]:
    """The members, dealt out to the regions in turn, with certificates issued where there are none yet.

    ``cohorts``: what new certificates name, "" for nothing; () for all of them nothing. UsageProblem FLV-2302 when the
    regions' CAs are not on this machine, FLV-2511 where the first policy selects none of them, ever; what the
    ``keeping`` of their keys raises.
    """
    regions, domain = sorted(genesis.regions), genesis.domain
    spread = np.random.default_rng([config.seed, _PACE_STREAM]).normal(
        0.0, config.speed_spread, config.devices
    )
    members = []
    for index in range(config.devices):
        region, device_id = regions[index % len(regions)], ids[index] if ids else device_name(index)
        cohort = cohorts[index] if cohorts else ""
        path = keys.issue(keys_folder, region, Role.DEVICE, device_id, keeping, cohort=cohort)
        signer = keys.load_key_pair(path, keeping.settings).of_task(domain)
        author = Author(genesis, region, device_id, signer, config.seed, cohort_in(signer.certificate))
        random = np.random.default_rng([config.seed, _CHOICE_STREAM, index])
        members.append(Member(index, author, float(np.exp(spread[index])), random))
    check_somebody(genesis.first_policy, (member.author.cohort for member in members))
    return members


def device_name(index: int) -> str:
    """The id of the fleet's device number ``index``."""
    return f"d-{index:04d}"


def next_behaviour(member: Member, config: FleetConfig) -> Behaviour:
    """What the member does in its coming round."""
    first_attacker = config.devices - config.attackers
    first_misbehaving = first_attacker - config.misbehaving
    if member.index >= first_attacker:
        return ATTACKS[(member.index - first_attacker) % len(ATTACKS)]
    if member.index < first_misbehaving:
        return Behaviour.HONEST
    # At first the misbehaving devices go through the whole repertoire together, each rule once.
    place = member.rounds * config.misbehaving + member.index - first_misbehaving
    if place < len(MISBEHAVIOURS):
        return MISBEHAVIOURS[place]
    if member.random.random() >= config.misbehaviour_rate:
        return Behaviour.HONEST
    return MISBEHAVIOURS[int(member.random.integers(len(MISBEHAVIOURS)))]


def selected_now(members: Iterable[Member], base: Base, waited_s: float) -> list[Member]:
    """Those who may answer ``base``, the newest version for so many seconds; each draws its lot once a turn."""
    turn = base.version, turns_after(waited_s, base.policy.buffer.seconds_max)
    asking = [member for member in members if member.asked != turn]
    for member in asking:
        member.asked = turn
    return [member for member in asking if member.author.is_selected(base, waited_s)]
