"""Where private layers wait for the next round: each device its own, whole or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from aggregation.errors import UsageProblem
from producers.sdk.private_layers import PrivateLayers
from schemas.tensor_files import RawTensor, raw_tensor, write_tensors

GENESIS = "ab" * 32


def layers(value: float) -> dict[str, RawTensor]:
    return {
        "head.weight": raw_tensor(np.full((3, 2), value, np.float32)),
        "norm.num_batches_tracked": raw_tensor(np.array(7, np.int64)),
    }


@pytest.fixture(params=["memory", "folder"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> PrivateLayers:
    return PrivateLayers() if request.param == "memory" else PrivateLayers(tmp_path / "private", GENESIS)


def test_each_device_gets_back_what_it_kept_last(kept: PrivateLayers) -> None:
    assert kept.of("d-1") is None
    kept.keep("d-1", layers(1.0))
    kept.keep("d-2", layers(2.0))
    kept.keep("d-1", layers(3.0))
    for device, value in (("d-1", 3.0), ("d-2", 2.0)):
        state = kept.of(device)
        assert state is not None
        assert set(state) == set(layers(value))
        assert all(state[name].same_as(raw) for name, raw in layers(value).items())


def test_a_task_without_private_layers_leaves_nothing(kept: PrivateLayers, tmp_path: Path) -> None:
    kept.keep("d-1", {})
    assert kept.of("d-1") is None
    assert list(tmp_path.iterdir()) == []


def test_another_process_goes_on_with_them_and_nobody_else_may_read_them(tmp_path: Path) -> None:
    one = PrivateLayers(tmp_path / "private", GENESIS)
    one.keep("d-1", layers(1.0))
    again = PrivateLayers(tmp_path / "private", GENESIS).of("d-1")
    assert again is not None
    assert again["head.weight"].same_as(layers(1.0)["head.weight"])
    for folder in (tmp_path / "private", one.path("d-1").parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in one.path("d-1").parent.iterdir()] == ["layers.safetensors"]


@pytest.mark.parametrize(
    "damage", ["cut", "empty", "no tensors", "another device", "another task", "no names"]
)
def test_what_is_not_its_own_is_refused_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    one = PrivateLayers(tmp_path, GENESIS)
    one.keep("d-1", layers(1.0))
    path = one.path("d-1")
    whole = path.read_bytes()
    if damage == "another device":
        one.keep("d-2", layers(2.0))
        whole = one.path("d-2").read_bytes()
    elif damage == "another task":
        other = PrivateLayers(tmp_path / "other", "cd" * 32)
        other.keep("d-1", layers(2.0))
        whole = other.path("d-1").read_bytes()
    elif damage == "no names":
        whole = write_tensors(layers(1.0))
    else:
        whole = {"cut": whole[:-5], "empty": b"", "no tensors": b"\x00" * 64}[damage]
    path.write_bytes(whole)
    with pytest.raises(UsageProblem, match="private layers cannot be used") as caught:
        one.of("d-1")
    assert caught.value.error_id == "FLV-2254"
    assert str(path) in caught.value.hint
    assert path.read_bytes() == whole
