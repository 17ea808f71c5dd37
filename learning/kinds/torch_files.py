"""Files that ``torch.save`` writes, without running any code that is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from learning.kinds.torch_module import raw_state

if TYPE_CHECKING:
    from pathlib import Path

    from schemas.tensor_files import RawTensor


def read_torch_file(path: Path) -> tuple[dict[str, RawTensor], str]:
    """The tensors of a saved ``state_dict()`` by name; or none, and in words what the file is instead."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (torch raises what pickle and zipfile raise)
        return {}, f"neither safetensors nor torch can read it ({type(error).__name__})"
    if not isinstance(state, dict) or not any(isinstance(value, torch.Tensor) for value in state.values()):
        inside = ", ".join(map(str, list(state)[:4])) if isinstance(state, dict) else type(state).__name__
        return {}, f"it holds no tensors by name, but {inside or 'nothing'}"
    return raw_state(state), ""
