"""Torch modules as files that run without their class: TorchScript and ONNX. Each is tried before it is given away.

An export that computes something else than the module is none: what it makes of the example is compared.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from aggregation.errors import UsageProblem

METADATA_FILE: Final = "fluvial.json"
"""Within a TorchScript archive: ``torch.jit.load(path, _extra_files={METADATA_FILE: ""})`` reads it."""
DIFFERENCE_MAX: Final = 1e-4
"""Between an export and its module, relative to the largest output: other programs add in another order."""
_BATCH_MIN: Final = 2
_INSTEAD: Final = "`--format safetensors` takes every model; its tensors have the names of `state_dict()`"


def torchscript_of(module: nn.Module, example: NDArray[Any]) -> torch.jit.ScriptModule:
    """The module as TorchScript: compiled from its source, else as it computes ``example``, a batch of inputs.

    Raises UsageProblem FLV-4115.
    """
    batch = _batch(example)
    expected = _outputs(module, batch)
    reasons = []
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # torch would rather have torch.export, which other programs do not read yet
        for way in ("script", "trace"):
            try:
                made = _scripted(module) if way == "script" else _traced(module, batch)
                found = _outputs(made, batch)
            except Exception as error:  # noqa: BLE001 (torch's compilers raise what they like; the user's code, too)
                reasons.append(_line(error))
                continue
            if _alike(found, expected):
                return made
            reasons.append("it computes something else")
    raise _refused("TorchScript", reasons[-1])


def torchscript_file(module: nn.Module, example: NDArray[Any], metadata: Mapping[str, str]) -> bytes:
    """``torchscript_of`` as a file, with ``metadata`` in it as ``METADATA_FILE``. Raises UsageProblem FLV-4115."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        extra = {METADATA_FILE: json.dumps(dict(metadata), sort_keys=True)}
        torch.jit.save(torchscript_of(module, example), stream, _extra_files=extra)
    return stream.getvalue()


def onnx_file(module: nn.Module, example: NDArray[Any], metadata: Mapping[str, str]) -> bytes:
    """The module as ONNX, for batches of any size, with ``metadata`` in its properties. Needs ``fluvial[onnx]``.

    Raises UsageProblem FLV-4115; ModuleNotFoundError where a package is missing.
    """
    import onnx
    import onnx.reference
    import onnxscript  # noqa: F401 (torch imports it, and says less clearly that it is missing)

    batch = _batch(example)
    expected = _outputs(module, batch)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module, (batch,), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
            )
        assert program is not None
        made = program.model_proto
        for key, value in metadata.items():
            made.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(made)
        inputs = {made.graph.input[0].name: batch.numpy()}
        found = [np.asarray(one) for one in onnx.reference.ReferenceEvaluator(made).run(None, inputs)]
    except Exception as error:
        raise _refused("ONNX", _line(error)) from error
    if not _alike(found, expected):
        raise _refused("ONNX", "it computes something else")
    data: bytes = made.SerializeToString()
    return data


def _scripted(module: nn.Module) -> torch.jit.ScriptModule:
    made: torch.jit.ScriptModule = torch.jit.script(module)
    return made


def _traced(module: nn.Module, batch: torch.Tensor) -> torch.jit.ScriptModule:
    made: torch.jit.ScriptModule = torch.jit.trace(module, batch)  # type: ignore[no-untyped-call]
    return made


def _batch(example: NDArray[Any]) -> torch.Tensor:
    """At least two examples: of one, a compiler would take the batch's size for a constant."""
    times = -(-_BATCH_MIN // len(example))
    return torch.from_numpy(np.concatenate([example] * times))


def _outputs(module: Any, batch: torch.Tensor) -> list[NDArray[Any]]:
    with torch.no_grad():
        made = module(batch)
    many = made if isinstance(made, tuple | list) else [made]
    return [one.detach().numpy() for one in many if isinstance(one, torch.Tensor)]


def _alike(found: list[NDArray[Any]], expected: list[NDArray[Any]]) -> bool:
    if [one.shape for one in found] != [one.shape for one in expected]:
        return False
    return all(
        np.allclose(
            one, other, rtol=DIFFERENCE_MAX, atol=DIFFERENCE_MAX * float(np.abs(other).max(initial=0))
        )
        for one, other in zip(found, expected, strict=True)
    )


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _refused(form: str, reason: str) -> UsageProblem:
    return UsageProblem("FLV-4115", f"the model cannot be written as {form}: {reason}", hint=_INSTEAD)
