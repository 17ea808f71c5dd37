"""What an attack is: from what the coalition knows to what one of its devices sends.

The coalition is strong: its devices pool what they know, see what the honest send, read the log (models, steps, guides)
and the policy. It has no keys but its own, so one device is one identity unless the attack says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fluvial.arena.perceptron import Floats, Labels
    from fluvial.arena.world import World

TARGET_CLASS: Final = 0
"""What backdoors make the model say."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What an attacker reads in the policy. ``guided``: ``cosine_min`` is of the guide, else of the last step."""

    norm_clip: float
    cosine_min: float = -1.0
    guided: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Knowledge:
    """What the coalition knows at one moment.

    ``honest`` float32[k, P]: the newest honest updates, k of 0 to 20. ``last_step``, ``guide``: float32[P], None where
    there is none. ``norm_usual``: the median of the honest norms; ``cosine_usual``: of their cosines with the guide.
    ``model`` gives any live version's parameters.
    """

    world: World
    rules: Rules
    version: int
    oldest_base: int
    honest: Floats
    last_step: Floats | None
    guide: Floats | None
    norm_usual: float
    cosine_usual: float
    model: Callable[[int], Floats]

    @property
    def mean(self) -> Floats:
        """The mean of the honest updates, float32[P]; zeros before there is any."""
        if not len(self.honest):
            return np.zeros_like(self.world.first)
        mean: Floats = self.honest.mean(axis=0)
        return mean

    @property
    def watched(self) -> Floats | None:
        """The direction that the rules compare updates with; None where they compare with none."""
        return self.guide if self.rules.guided else self.last_step


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One malicious device's turn. ``own`` float32[P]: what its training gave, on what ``Attack.data`` left it.

    ``member`` is its number in the coalition of ``members``; ``rng`` is its own.
    """

    device: str
    member: int
    members: int
    base: int
    own: Floats
    known: Knowledge
    rng: np.random.Generator


@dataclass(slots=True, eq=False)
class Sent:
    """One update on its way and what became of it.

    ``weight``: a fresh update's is 1.0, before clipping; ``share``: of what its staleness leaves of it, 0.0 to 1.0.
    """

    device: str
    base: int
    delta: Floats
    malicious: bool = False
    outcome: str = ""
    weight: float = 0.0
    share: float = 0.0
    staleness: int = 0


class Attack:
    """One attack, without state: whatever it draws, it draws of its turn's ``rng``.

    ``source`` cites where it is described. ``knows_rules``: whether it makes use of the policy. ``floods``: whether it
    sends more than one update a device and version. ``pace``: how long its rounds take, in honest ones.
    ``identities``: a device of the coalition speaks with so many certificates for every honest device there is.
    ``region``: the coalition sits in one region. ``backdoor``: success is measured on its trigger.
    """

    name: ClassVar[str] = ""
    source: ClassVar[str] = ""
    knows_rules: ClassVar[bool] = False
    floods: ClassVar[bool] = False
    pace: ClassVar[float] = 1.0
    traffic: ClassVar[float] = 0.0
    one_region: ClassVar[bool] = False
    backdoor: ClassVar[bool] = False

    def data(self, world: World, member: int, x: Floats, y: Labels) -> tuple[Floats, Labels]:  # noqa: ARG002 (the shape)
        """The examples that a device of the coalition trains on; the honest ones, where an attack leaves them."""
        return x, y

    def delta(self, turn: Turn) -> Floats:
        """What it sends in the place of its own update."""
        return turn.own

    def answers(self, turn: Turn) -> Sequence[Sent]:
        """Everything that it appends in one turn, in order."""
        return [Sent(turn.device, turn.base, self.delta(turn))]

    def triggered(self, world: World) -> tuple[Floats, Labels] | None:  # noqa: ARG002
        """Inputs that carry the trigger, and what the attacker wants to hear; None where there is no such thing."""
        return None


def of_norm(vector: Floats, norm: float) -> Floats:
    """``vector`` at this norm; zeros stay zeros."""
    own = float(np.linalg.norm(vector))
    scaled: Floats = vector * np.float32(norm / own) if own > 0.0 else vector
    return scaled


def against(direction: Floats | None, wish: Floats, cosine: float) -> Floats:
    """A unit vector along ``wish``, turned so far that its cosine with ``direction`` is ``cosine`` at least.

    Where ``wish`` itself has at least that cosine it is left as it is.
    """
    wish = of_norm(wish, 1.0)
    if direction is None or not np.any(direction):
        return wish
    along = of_norm(direction, 1.0)
    now = float(wish @ along)
    if now >= cosine:
        return wish
    across = of_norm(wish - np.float32(now) * along, 1.0)
    mixed: Floats = np.float32(cosine) * along + np.float32((1.0 - cosine**2) ** 0.5) * across
    return mixed
