"""A version's model for other programs: safetensors, TorchScript, ONNX, or a model of MLflow's.

Every file says which task, version and genesis it is of, and the hash of the version's model.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from aggregation.errors import EnvironmentProblem, FluvialError, UsageProblem
from schemas.states import state_metadata, whole_state
from schemas.tensor_files import write_tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fluvial.reading.models import FoundVersion, Model
    from learning.task import Task

SUFFIXES: Final = {
    "safetensors": ".safetensors",
    "torchscript": ".torchscript.pt",
    "onnx": ".onnx",
    "mlflow": "-mlflow",
}
"""The formats, and how a file's name ends; MLflow's is a folder."""
_EXAMPLES: Final = 2
_KINDS: Final = {"torchscript": ("torch",), "onnx": ("torch",), "mlflow": ("torch", "sklearn")}
"""Of which libraries' models there is such a file; safetensors takes all."""


@dataclass(frozen=True, slots=True)
class Exporting:
    """A version, its model, and where examples of inputs come from. ``shape``: of one input; () for the task's data."""

    found: FoundVersion
    model: Model
    shape: tuple[int, ...] = ()

    @property
    def metadata(self) -> dict[str, str]:
        """What every file says about itself."""
        genesis, base = self.found.genesis, self.found.base
        said = state_metadata(genesis, base.version, base.sha256)
        return said | {"fluvial.genesis_sha256": self.found.genesis_sha256}

    def write(self, form: str, path: Path) -> None:
        """Write the model in one of ``SUFFIXES``; what stands at ``path`` is replaced, once the model is there whole.

        Raises UsageProblem FLV-4115 (there is no such file of this model), EnvironmentProblem FLV-4113 (it cannot be
        written), ModuleNotFoundError (the format's package is not installed), and what loading the task's program does.
        """
        kind = self.found.genesis.model.kind
        if kind not in _KINDS.get(form, (kind,)):
            raise UsageProblem(
                "FLV-4115",
                f"the model is of {kind}, and a file of {form} holds models of {' or '.join(_KINDS[form])}",
                hint="`--format safetensors` takes every model",
            )
        part = path.with_name(f"{path.name}.part")
        try:
            if form == "mlflow":
                if part.exists():
                    shutil.rmtree(part)
                self._mlflow(part)
                if path.exists():
                    shutil.rmtree(path)
            else:
                part.write_bytes(self._bytes(form))
            part.replace(path)
        except OSError as error:
            raise EnvironmentProblem(
                "FLV-4113",
                f"{path} cannot be written: {error.strerror or error}",
                hint="name another place with `--out`",
            ) from error

    def _bytes(self, form: str) -> bytes:
        if form == "safetensors":
            found = self.found
            return write_tensors(
                whole_state(found.genesis, found.base.parameters, found.frozen), self.metadata
            )
        from learning.kinds.torch_exports import onnx_file, torchscript_file

        task = self.model.program()
        write = onnx_file if form == "onnx" else torchscript_file
        return write(self.model.module(task), self._example(task), self.metadata)

    def _mlflow(self, path: Path) -> None:
        try:
            import mlflow.pytorch
            import mlflow.sklearn
        except ModuleNotFoundError as error:
            raise EnvironmentProblem(
                "FLV-1030",
                f"models of MLflow need the package {error.name}, which is not installed",
                hint="pip install mlflow (of mlflow-skinny, which `fluvial track` needs, the models are left out)",
            ) from error
        task = self.model.program()
        module = self.model.module(task)
        if self.found.genesis.model.kind == "sklearn":
            mlflow.sklearn.save_model(
                module,
                path,
                serialization_format="cloudpickle",
                metadata=self.metadata,
                pip_requirements=[_pinned("scikit-learn")],
            )
            return
        from learning.kinds.torch_exports import torchscript_of

        # A pickled module would want its class, which lies in the task's program: TorchScript wants torch alone, and is
        # no pickle, whatever MLflow calls that format.
        mlflow.pytorch.save_model(
            torchscript_of(module, self._example(task)),
            path,
            metadata=self.metadata,
            serialization_format="pickle",
            pip_requirements=[_pinned("torch")],
        )

    def _example(self, task: Task) -> NDArray[Any]:
        """A few inputs, to compile for and to compare with."""
        if self.shape:
            return np.random.default_rng(0).uniform(size=(_EXAMPLES, *self.shape)).astype(np.float32)
        try:
            return task.data().test.x[:_EXAMPLES]
        except FluvialError as problem:
            raise UsageProblem(
                "FLV-4115",
                f"there is no example of an input to write the model for: {problem.message}",
                where=str(task.path),
                hint="give the shape of one input, such as `--input-shape 1,28,28`",
            ) from problem


def _pinned(package: str) -> str:
    return f"{package}=={version(package).partition('+')[0]}"
