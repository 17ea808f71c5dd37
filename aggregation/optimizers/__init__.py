"""Server optimizers: one elementwise step from a mean delta."""

from aggregation.optimizers.step import OptimizerState, initial_state, server_step

__all__ = ["OptimizerState", "initial_state", "server_step"]
