"""Where a device keeps its private layers from one round to the next: in this process, or in a folder a device.

In a task with control variates its own of these stand beside them (``learning.control``). They never leave the device:
no record and no object of the store has anything of them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aggregation.errors import IntegrityProblem, UsageProblem
from backends.folders import make_private
from schemas.tensor_files import read_metadata, read_tensors, write_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from schemas.tensor_files import RawTensor

    State = Mapping[str, RawTensor]

FILE: Final = "layers.safetensors"


class PrivateLayers:
    """The private layers of the devices of one task, in this process; with ``folder``, below it, in one a device.

    ``genesis_sha256``: the task's, which stands in the files.
    """

    def __init__(self, folder: Path | None = None, genesis_sha256: str = "") -> None:
        self._genesis_sha256 = genesis_sha256
        self._folder = folder
        self._held: dict[str, State] = {}

    def of(self, device_id: str) -> State | None:
        """What the device's last round left; None where it has none yet.

        UsageProblem FLV-2254 where its file is damaged, another device's, or another task's.
        """
        if self._folder is None:
            return self._held.get(device_id)
        path = self.path(device_id)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            tensors, whose = read_tensors(data), read_metadata(data)
        except IntegrityProblem as error:
            raise _unusable(path, error.message) from error
        if whose != self._whose(device_id):
            raise _unusable(path, "it is of another device or of another task")
        return tensors

    def keep(self, device_id: str, state: State) -> None:
        """Keep what a round left; nothing where the task has no private layers. OSError where it cannot be written."""
        if not state:
            return
        if self._folder is None:
            self._held[device_id] = state
            return
        path = self.path(device_id)
        make_private(path.parent)
        whole = path.with_suffix(".new")
        whole.write_bytes(write_tensors(state, self._whose(device_id)))
        os.replace(whole, path)  # noqa: PTH105 (one call, and atomic)

    def path(self, device_id: str) -> Path:
        """The device's file, where there is a folder."""
        assert self._folder is not None, "kept in memory"
        return self._folder / device_id / FILE

    def _whose(self, device_id: str) -> dict[str, str]:
        return {"device": device_id, "genesis_sha256": self._genesis_sha256}


def _unusable(path: Path, why: str) -> UsageProblem:
    return UsageProblem(
        "FLV-2254",
        f"the device's private layers cannot be used: {why}",
        where=str(path),
        hint=f"put its own file back, or remove {path} and the device begins with new ones",
    )
