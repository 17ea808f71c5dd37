"""A task as a folder of TensorBoard's event files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tensorboard.summary import Writer

from aggregation.errors import EnvironmentProblem

if TYPE_CHECKING:
    from fluvial.tracking.tracker import TrackedTask, TrackedVersion

DEFAULT_FOLDER: Final = "runs"
_PLACE: Final = "fluvial.version"


class TensorBoardFiles:
    """One task becomes the folder FOLDER/TASK, a step of its metrics a version.

    A file beside the events holds the last version that was written, so that telling again adds what is new.
    """

    def __init__(self, address: str = "") -> None:
        """``address``: the folder that TensorBoard is given as ``--logdir``, else ``DEFAULT_FOLDER``."""
        self._root = Path(address or DEFAULT_FOLDER)
        self._folder = self._root
        self._writer: Writer | None = None

    def on_start(self, task: TrackedTask) -> int:
        """Open the task's folder; the last version that it holds.

        Raises EnvironmentProblem FLV-7063: it cannot be written.
        """
        self._folder = self._root / f"{task.name}-{task.genesis_sha256[:8]}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = Writer(str(self._folder))
            place = self._folder / _PLACE
            return int(place.read_text(encoding="ascii")) if place.exists() else 0
        except (OSError, ValueError) as error:
            raise self._unwritable(error) from error

    def on_version(self, version: TrackedVersion) -> None:
        """Write the version's metrics at the step of its number.

        Raises EnvironmentProblem FLV-7063.
        """
        assert self._writer is not None, "on_start comes first"
        counted = {"fluvial/updates": version.updates, "fluvial/refused": version.refused}
        told = {**version.metrics, **counted, "fluvial/staleness_mean": version.staleness_mean}
        try:
            for name, value in told.items():
                self._writer.add_scalar(name, value, version.version)
            self._writer.flush()
            (self._folder / _PLACE).write_text(str(version.version), encoding="ascii")
        except OSError as error:
            raise self._unwritable(error) from error

    def on_end(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()

    def _unwritable(self, error: Exception) -> EnvironmentProblem:
        return EnvironmentProblem(
            "FLV-7063",
            f"TensorBoard's files cannot be written: {getattr(error, 'strerror', None) or error}",
            where=str(self._folder),
            hint="choose another folder: `--to tensorboard=DIR`",
        )
