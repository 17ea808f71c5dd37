"""A model's whole state by name, beyond the layout: for files that other programs write and read.

A version's file has the layout's tensors. With the genesis document and the frozen object that it names, it is all of
the model's ``state_dict()``, without the task's code.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from aggregation.errors import IntegrityProblem, UsageProblem
from aggregation.layout import CONTROL, DTYPE
from schemas.checkpoints import encode_model
from schemas.objects import sha256_hex
from schemas.tensor_files import (
    FLOATS,
    RawTensor,
    float32_of,
    held_in,
    raw_tensor,
    read_tensors,
    write_tensors,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from schemas.manifests import Genesis, TensorEntry

    Flat = npt.NDArray[np.float32]

_NARROW: Final = ("float16", "bfloat16")
_PREFIXES: Final = ("module.", "_orig_mod.", "_module.")
"""What wrappers put before every name: DataParallel, torch.compile, Opacus."""
_RIGHT_FILE: Final = (
    "write the task's own model: `torch.save(model.state_dict(), FILE)`, or safetensors.torch.save_model"
)


def frozen_of(genesis: Genesis, read_object: Callable[[str], bytes]) -> dict[str, RawTensor]:
    """The tensors that no device changes, by name; empty where there are none.

    ``read_object``: an object's bytes by its SHA-256. IntegrityProblem FLV-4110 when they are not those of the genesis.
    """
    entry = genesis.model.frozen
    if entry is None:
        return {}
    data = read_object(entry.sha256)
    if len(data) != entry.size or sha256_hex(data) != entry.sha256:
        raise IntegrityProblem(
            "FLV-4110",
            f"the frozen tensors of {genesis.task} are {len(data)} bytes of {sha256_hex(data)[:16]}, its genesis says "
            f"{entry.size} of {entry.sha256[:16]}",
            hint="restore the object from a backup; `fluvial audit` names everything that differs",
        )
    return read_tensors(data)


def whole_state(genesis: Genesis, model: Flat, frozen: Mapping[str, RawTensor]) -> dict[str, RawTensor]:
    """Every tensor of the model that is ``model`` float32[P], tied ones under each of their names.

    The layout's are float32, in which versions have all their digits; frozen ones are of their own dtype. A version's
    control variates are no part of its model.
    """
    layout = genesis.tensor_layout
    state = {
        spec.name: raw_tensor(model[layout.starts[t] : layout.starts[t + 1]].reshape(spec.shape))
        for t, spec in enumerate(layout.tensors)
        if spec.section != CONTROL
    } | dict(frozen)
    return state | {alias: state[name] for alias, name in genesis.model.tied.items()}


def state_file(
    genesis: Genesis, version: int, model_sha256: str, model: Flat, frozen: Mapping[str, RawTensor]
) -> bytes:
    """A safetensors file of ``whole_state``: what torch loads with ``load_state_dict``, strictly.

    Where a version's own file is that already, these are its bytes, which ``model_sha256`` names.
    """
    narrow = any(entry.dtype != DTYPE for entry in genesis.layout)
    control = any(entry.section == CONTROL for entry in genesis.layout)
    if not (frozen or genesis.model.tied or narrow or control):
        return encode_model(model, genesis.tensor_layout)
    return write_tensors(whole_state(genesis, model, frozen), state_metadata(genesis, version, model_sha256))


def state_metadata(genesis: Genesis, version: int, model_sha256: str) -> dict[str, str]:
    """What a file of ``whole_state`` says about itself: which version it is, what is tied, frozen, of which dtype."""
    dtypes = {entry.name: entry.dtype for entry in _model_entries(genesis)}
    frozen = genesis.model.frozen
    said = {
        "task": genesis.task,
        "version": version,
        "model_sha256": model_sha256,
        "kind": genesis.model.kind,
        "dtypes": dtypes,
        "tied": genesis.model.tied,
        "frozen": frozen.sha256 if frozen is not None else "",
    }
    words = {
        f"fluvial.{key}": value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for key, value in said.items()
    }
    return words | ({"format": "pt"} if genesis.model.kind == "torch" else {})


def update_of_state(
    genesis: Genesis, state: Mapping[str, RawTensor], base: Flat, frozen: Mapping[str, RawTensor]
) -> tuple[Flat, list[str]]:
    """What a device publishes that trained ``base`` float32[P] to ``state``: as ``codecs.update_of``, and notes.

    ``state`` is any state of the task's model: whatever its floats' dtypes, with tied tensors once or under each name,
    with counters and frozen tensors or without. A tensor in bfloat16 or float16 was trained from the base's nearest
    values, so its change is to these. The notes say what was not taken and may have been meant.

    Raises UsageProblem FLV-4111, naming the first tensor that is not the model's.
    """
    state = _without_prefix(state, genesis)
    layout, tied = genesis.tensor_layout, genesis.model.tied
    update = np.zeros(layout.parameters, dtype=np.float32)
    for t, entry in enumerate(_model_entries(genesis)):
        names = [entry.name, *(alias for alias, name in tied.items() if name == entry.name)]
        raw = _one_of(state, names, entry)
        place = slice(int(layout.starts[t]), int(layout.starts[t + 1]))
        local, start = float32_of(raw).reshape(-1), base[place]
        held = held_in(start, _dtype_of(raw, local, entry))
        if place.stop <= layout.trainable.parameters:
            update[place] = local - held
        else:
            update[place] = np.where(local == held, start, local)
    return update, list(_not_taken(state, genesis, frozen))


def base_as_held(genesis: Genesis, local: Flat, base: Flat) -> Flat:
    """What a device held of ``base`` float32[P] that trained it to ``local``: the nearest values that it could.

    Where ``local`` has more digits than the genesis says of a tensor, the device held it in float32.
    """
    held, layout = base, genesis.tensor_layout
    for t, entry in enumerate(_model_entries(genesis)):
        place = slice(int(layout.starts[t]), int(layout.starts[t + 1]))
        if entry.dtype in _NARROW and _holds(local[place], entry.dtype):
            held = held.copy() if held is base else held
            held[place] = held_in(base[place], entry.dtype)
    return held


def _model_entries(genesis: Genesis) -> list[TensorEntry]:
    """The layout's tensors that a device's model has: they stand before the control variates."""
    return [entry for entry in genesis.layout if entry.section != CONTROL]


def _holds(values: Flat, dtype: str) -> bool:
    return np.array_equal(held_in(values, dtype), values, equal_nan=True)


def _without_prefix(state: Mapping[str, RawTensor], genesis: Genesis) -> Mapping[str, RawTensor]:
    if not any(entry.name in state for entry in genesis.layout):
        for prefix in _PREFIXES:
            if state and all(name.startswith(prefix) for name in state):
                return {name.removeprefix(prefix): raw for name, raw in state.items()}
    return state


def _one_of(state: Mapping[str, RawTensor], names: list[str], entry: TensorEntry) -> RawTensor:
    found = [name for name in names if name in state]
    expected = f"expected float32{list(entry.shape)}"
    if not found:
        close = get_close_matches(entry.name, state, n=1)
        raise UsageProblem(
            "FLV-4111",
            f"tensor {entry.name} is missing: {expected}",
            hint=f"is it {close[0]}? {_RIGHT_FILE}" if close else _RIGHT_FILE,
        )
    for name in found:
        raw = state[name]
        if raw.shape != entry.shape or raw.dtype not in FLOATS:
            raise UsageProblem("FLV-4111", f"tensor {name} is {raw}: {expected}", hint=_RIGHT_FILE)
        if not raw.same_as(state[found[0]]):
            raise UsageProblem(
                "FLV-4111",
                f"tensors {found[0]} and {name} are one in this task, and the file has two: they differ",
                hint="tie them as model() does, and train again",
            )
    return state[found[0]]


def _dtype_of(raw: RawTensor, local: Flat, entry: TensorEntry) -> str:
    """What the device held this tensor in: a file may have been written in float32 of a model in bfloat16."""
    if raw.dtype in _NARROW:
        return raw.dtype
    if entry.dtype in _NARROW and _holds(local, entry.dtype):
        return entry.dtype
    return raw.dtype


def _not_taken(
    state: Mapping[str, RawTensor], genesis: Genesis, frozen: Mapping[str, RawTensor]
) -> Iterator[str]:
    """Notes on the tensors beside the layout's; FLV-4111 for those that the model has not."""
    tied = genesis.model.tied
    learned = {entry.name for entry in _model_entries(genesis)}
    changed = []
    for name, raw in state.items():
        known = frozen.get(tied.get(name, name))
        if tied.get(name, name) in learned or raw.dtype not in FLOATS:
            continue
        if known is None:
            if any(raw.same_as(state[other]) for other in learned if other in state):
                continue  # tied; genesis documents before v3 do not say so
            raise UsageProblem(
                "FLV-4111",
                f"tensor {name} is {raw}: the task's model has none of that name",
                hint=_RIGHT_FILE,
            )
        if known.shape != raw.shape:
            raise UsageProblem("FLV-4111", f"tensor {name} is {raw}: expected {known}", hint=_RIGHT_FILE)
        if not np.array_equal(held_in(float32_of(known), raw.dtype), float32_of(raw)):
            changed.append(name)
    if changed:
        shown = ", ".join(changed[:3]) + (", …" if len(changed) > 3 else "")  # noqa: PLR2004 (what fits on a line)
        yield f"left out, as frozen in this task: {shown} (the file has other values than the task)"
