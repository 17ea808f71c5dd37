"""Files with a model's state that other programs wrote: safetensors, or what ``torch.save`` writes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from aggregation.errors import UsageProblem
from schemas.tensor_files import RawTensor, read_tensors

if TYPE_CHECKING:
    from pathlib import Path

_SAFETENSORS_HEAD: Final = b"{"
_HEADER_AT: Final = 8


def read_state(path: Path) -> dict[str, RawTensor]:
    """A file's tensors by name. Torch's files need ``fluvial[learning]``, and no code in them is run.

    Raises UsageProblem FLV-2219 when it cannot be read, FLV-4112 when it is no dict of tensors.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageProblem(
            "FLV-2219",
            f"no model file {path}: {error.strerror or error}",
            hint="`fluvial model get --out model.safetensors` writes one",
        ) from error
    if data[_HEADER_AT : _HEADER_AT + 1] == _SAFETENSORS_HEAD:
        return read_tensors(data)
    return _torch_state(path)


def _torch_state(path: Path) -> dict[str, RawTensor]:
    if find_spec("torch") is None:
        raise _refused(path, "it is no safetensors file, and torch, which may know it, is not installed")
    from learning.kinds.torch_files import read_torch_file

    state, inside = read_torch_file(path)
    if not state:
        raise _refused(path, inside)
    return state


def _refused(path: Path, reason: str) -> UsageProblem:
    return UsageProblem(
        "FLV-4112",
        f"{path} is no model file: {reason}",
        hint="write `torch.save(model.state_dict(), FILE)`, or safetensors.torch.save_model(model, FILE)",
    )
