"""Which rules of records hold in a task. Its genesis document says so, once and for ever.

What a record *is*, and what is written of it, is part of what a log means. So a task keeps the rules that it was made
with, and fold, workers, audit, checker and simulator all take them from the genesis document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CERTIFICATE: Final = "certificate:"
"""What the name of a revoked certificate begins with, in tasks where a Revoke bars every role."""


@dataclass(frozen=True, slots=True)
class RecordRules:
    """``canonical``: bytes that are not the one encoding of what they say are refused, in records and certificates.

    ``verdicts``: the version of Verdict that is written. In 1 a verdict holds a text, in 2 a reason's code and values.
    ``signatures``: the version of what is signed. In 1 it names the kind of record, in 2 the task's genesis too.
    """

    canonical: bool
    verdicts: int
    signatures: int = 1

    @property
    def revokes_all(self) -> bool:
        """Whether a Revoke bars whoever signs with a certificate; before, it bars devices only."""
        return self.signatures > 1

    def certificate_name(self, serial: str) -> str:
        """Under which name a certificate of this serial (hex) stands among what is revoked in a partition.

        A device may be called like a serial, so a certificate's name is none that a device can have.
        """
        return f"{CERTIFICATE}{serial}" if serial and self.revokes_all else serial


FIRST_RULES: Final = RecordRules(canonical=False, verdicts=1)
"""Those of tasks whose genesis document says nothing of them: formats before ``fluvial/genesis/v4``."""
CANONICAL_RULES: Final = RecordRules(canonical=True, verdicts=2)
"""Those of tasks of ``fluvial/genesis/v4``."""
TASK_RULES: Final = RecordRules(canonical=True, verdicts=2, signatures=2)
"""Those of new tasks, ``fluvial/genesis/v5``."""
