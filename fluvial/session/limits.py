"""How long a run waits for what. Nothing is imported here: commands show these as defaults."""

from __future__ import annotations

from typing import Final

STALL_S: Final = 180.0
"""A run in which nobody has worked for so long has failed. ``--stall-seconds`` is another."""
EVALUATION_MARGIN_S: Final = 60.0
"""An evaluator that is behind works for what a version may take, and so much more: to load it, to start again."""
DEAD_END_S: Final = 10.0
"""A dead end is told when nothing has moved for so long: what is under way in Kafka has come by then."""
LONG_S: Final = 10.0
"""What takes longer is told."""
