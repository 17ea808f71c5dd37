"""Server optimizers: one elementwise step from a mean delta. A file a member; ``OPTIMIZERS`` names them."""

from aggregation.optimizers.shape import Optimizer, OptimizerState, ServerParameters, Sums
from aggregation.optimizers.table import OPTIMIZERS, ServerStep, initial_state, read_only, server_step

__all__ = [
    "OPTIMIZERS",
    "Optimizer",
    "OptimizerState",
    "ServerParameters",
    "ServerStep",
    "Sums",
    "initial_state",
    "read_only",
    "server_step",
]
