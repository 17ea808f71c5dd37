"""Attacks: a file a family, one shape, one table."""

from __future__ import annotations

from typing import Final

from fluvial.arena.attacks import backdoors, crowds, informed, optimized, plain, quiet
from fluvial.arena.attacks.shape import Attack

NO_ATTACK: Final = "none"

ATTACKS: Final[dict[str, Attack]] = {
    attack.name: attack
    for attack in (
        plain.SignFlip(),
        plain.Scaling(),
        plain.Gaussian(),
        plain.LabelFlip(),
        optimized.Alie(),
        optimized.InnerProduct(),
        optimized.MinMax(),
        optimized.MinSum(),
        optimized.Mimic(),
        backdoors.BackdoorPatch(),
        backdoors.BackdoorSemantic(),
        backdoors.BackdoorDistributed(),
        backdoors.ModelReplacement(),
        quiet.FreeRiderZeros(),
        quiet.FreeRiderReplay(),
        quiet.SlowDrift(),
        quiet.LatePhase(),
        quiet.SpoofedStaleness(),
        crowds.FloodBases(),
        crowds.FloodIdentities(),
        crowds.Fast(),
        crowds.Starvation(),
        crowds.StarvationShort(),
        informed.DetectorPoisoned(),
        informed.DetectorOff(),
        informed.Collusion(),
        informed.InsideTheBound(),
        informed.AdaptiveToTheStep(),
        informed.AdaptiveToTheGuide(),
        crowds.FloodAdaptive(),
        crowds.FloodIdentitiesAdaptive(),
    )
}
"""Every attack by its name, in the table's order."""
