"""Faults on purpose: the kills of `fluvial demo --chaos` (``strikes``), and all of `fluvial chaos` (``run``)."""

from ops.chaos.strikes import Chaos, Strike

__all__ = ["Chaos", "Strike"]
