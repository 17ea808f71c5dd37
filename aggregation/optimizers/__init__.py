"""Server optimizers: one elementwise step from a mean delta. A file a member; ``OPTIMIZERS`` names them."""

from aggregation.optimizers.shape import Optimizer, OptimizerState, ServerParameters
from aggregation.optimizers.table import OPTIMIZERS, initial_state, server_step

__all__ = ["OPTIMIZERS", "Optimizer", "OptimizerState", "ServerParameters", "initial_state", "server_step"]
