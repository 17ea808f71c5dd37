"""What bounds an evaluator. Nothing is imported here: commands show it as a default."""

from __future__ import annotations

from typing import Final

EVALUATION_S_MAX: Final = 600.0
"""How long a version's evaluation may take; then it is published as late. ``--evaluation-seconds`` is another."""
