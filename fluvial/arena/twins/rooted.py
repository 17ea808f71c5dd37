"""Rules that compare updates with what a small trusted root set gives."""

from __future__ import annotations

from typing import Final

import numpy as np

from fluvial.arena.twins.shape import Batch, Combined, Doubles, Twin, cosines, weighted

AFLGUARD_RADIUS: Final = 1.5
ZENO_RHO: Final = 0.1
ZENO_SLACK: Final = 0.0


class FLTrust(Twin):
    """Weights are max(0, cosine) with the root's update, norms are the root's."""

    name = "fltrust"
    source = "Cao et al. 2021, FLTrust, section 4.2"
    needs_root = True
    fair = False

    def combine(self, batch: Batch) -> Combined:
        """See ``Twin``."""
        guide = _guide(batch)
        trust = np.maximum(0.0, cosines(batch.updates, guide)) * batch.weights
        norms = np.linalg.norm(batch.updates, axis=1)
        sized = np.divide(float(np.linalg.norm(guide)), norms, out=np.zeros_like(norms), where=norms > 0.0)
        return Combined(weighted(batch.updates * sized[:, None], trust), trust)


class AFLGuard(Twin):
    """An update counts that is no farther from the root's than λ times its norm."""

    name = "aflguard"
    source = "Fang et al. 2022, AFLGuard, section 4"
    needs_root = True

    def combine(self, batch: Batch) -> Combined:
        """See ``Twin``."""
        guide = _guide(batch)
        apart = np.linalg.norm(batch.updates - guide, axis=1)
        counted = (apart <= AFLGUARD_RADIUS * float(np.linalg.norm(guide))) * batch.weights
        return Combined(weighted(batch.updates, counted), counted)


class ZenoPlusPlus(Twin):
    """Scaled to the root's norm, an update counts whose score ⟨root, update⟩ − rho‖update‖² is not below the slack."""

    name = "zeno++"
    source = "Xie et al. 2020, Zeno++, section 4, definition 3"
    needs_root = True
    fair = False

    def combine(self, batch: Batch) -> Combined:
        """See ``Twin``."""
        guide = _guide(batch)
        norms = np.linalg.norm(batch.updates, axis=1)
        size = float(np.linalg.norm(guide))
        sized = np.divide(size, norms, out=np.zeros_like(norms), where=norms > 0.0)[:, None] * batch.updates
        scores = sized @ guide - ZENO_RHO * np.einsum("ij,ij->i", sized, sized)
        counted = ((scores >= -ZENO_SLACK) & (norms > 0.0)) * batch.weights
        return Combined(weighted(sized, counted), counted)


def _guide(batch: Batch) -> Doubles:
    if batch.guide is None:
        raise ValueError("this rule needs the update of a root set")
    return batch.guide
