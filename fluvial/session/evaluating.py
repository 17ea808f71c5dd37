"""One version's evaluation in this process, as a simulation does it: no version stops it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregation.errors import FluvialError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from learning import Examples, Task


def evaluated(
    task: Task, parameters: npt.NDArray[np.float32], held_out: Examples
) -> tuple[Mapping[str, float], str]:
    """(the numbers, "") of float32[P], or (none, why there are none, with the user's line)."""
    from learning.training import evaluate_parameters

    try:
        return evaluate_parameters(task, parameters, held_out), ""
    except KeyboardInterrupt:
        raise
    except FluvialError as error:
        return {}, f"{error.message} ({error.where})" if error.where else error.message
    except BaseException as error:  # noqa: BLE001 (users' code may raise anything)
        return {}, repr(error)
