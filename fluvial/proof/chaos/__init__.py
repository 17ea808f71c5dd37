"""``fluvial chaos``: faults on purpose, on a stack of its own, and the proof that nothing was lost (``run``)."""
