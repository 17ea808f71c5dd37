"""A version's weights for whoever wants to use them: by name, or as the user's own torch module."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from aggregation.errors import UsageProblem
from backends.environment import load_settings, resolve_home
from backends.object_store import ObjectNotFound
from backends.programs import find_program
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import read_task_file, task_names
from fluvial.reading.state_files import read_state
from producers.sdk.bases import Bases, arrays_of
from schemas.objects import sha256_hex
from schemas.states import frozen_of, state_file, whole_state
from schemas.tensor_files import FLOATS, float32_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    import numpy.typing as npt

    from backends.settings import Settings
    from learning.kinds.protocol import Model as LibraryModel
    from learning.task import Task
    from producers.sdk.bases import Base
    from schemas.manifests import Genesis
    from schemas.tensor_files import RawTensor

FILE_SUFFIXES: Final = (".safetensors", ".pt", ".pth", ".bin")

log = logging.getLogger("fluvial")


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One version of a task's model.

    ``arrays`` are float32, read-only, by tensor name, in the model's shapes: what devices learn. ``state`` is all of
    the model, frozen tensors and tied names as well, each in the file's dtype. ``sha256`` names the bytes of its
    ``model.safetensors``. ``version`` is None for a file that does not say. ``reference`` is the task's code as this
    machine knows it (a file, or a shipped task's name), "" where it knows none.
    """

    arrays: Mapping[str, npt.NDArray[np.float32]] = field(repr=False)
    sha256: str
    task: str = ""
    version: int | None = None
    reference: str = ""
    state: Mapping[str, RawTensor] = field(default_factory=dict, repr=False)
    _find_program: Callable[[], str] | None = field(default=None, repr=False)

    def module(self, task: Task | None = None, *, private: Path | str | None = None) -> LibraryModel:
        """The user's own ``torch.nn.Module``, whole: what ``model()`` of the task file makes, in this version's state.

        Without ``task`` its program is loaded: the file that it was created with, or what the task carries of it. A
        model from a file has to be told. ``private``: a device's file of its private layers, for a task that has such;
        without it they are as ``model()`` made them, which is said. Needs ``fluvial[learning]``. UsageProblem FLV-2213
        when the weights are not that model's, FLV-2254 when the private layers are not, FLV-2219 or FLV-4112
        when there is no such file; FLV-2218 when nothing says
        which task; what finding and loading its program raises.
        """
        from learning.private import in_words
        from learning.tensors import model_with

        found = task or self.program()
        if found.private and private is None:
            log.warning(
                "%d tensors of this model are private (%s): no version has them, and they are as model() made them; "
                "a device's own are given by module(private=...)",
                len(found.private),
                in_words(found.private),
            )
        own = None if private is None else read_state(Path(private))
        model = model_with(found, self.state, own)
        with found.kind.mode(model, training=False):  # as it is used, not as it is trained
            return model

    def program(self) -> Task:
        """The task that the weights are of: the file that it was created with, or what the task carries of it.

        UsageProblem FLV-2218 when nothing says which; what finding and loading its program raises.
        """
        from learning.task import load_task

        if self._find_program is None:
            raise UsageProblem(
                "FLV-2218",
                "nothing says which task file these weights belong to",
                where=self.task,
                hint='give it: `model.module(load_task("mine.py"))`',
            )
        return load_task(self._find_program())


def load_model(
    task: Task | str | Path,
    version: int | None = None,
    *,
    settings: Settings | None = None,
    home: Path | str | None = None,
    genesis_sha256: str | None = None,
) -> Model:
    """The weights of a version of a task, or of a file; the newest version unless told.

    Args:
        task: a task's name, a loaded ``Task``, or the path of a file of tensors by name: safetensors, or what
            ``torch.save(model.state_dict(), …)`` writes (.pt, .pth, .bin); then nothing else is needed.
        version: 0 is the model that training began with.
        settings: where the store is; without, from FLUVIAL_* variables or the stack of ``home``.
        home: the folder of local state, ``./.fluvial`` unless told.
        genesis_sha256: the trust anchor. Without, the one that this machine knows the task by; else the store is
            believed, and no code of it is run. The model is held against the hash in its manifest; whether the
            manifest follows from the logs is what ``fluvial audit`` says.

    UsageProblem: FLV-2401, no such task; FLV-2507, no such version; FLV-2219 or FLV-4112, no such or no model file.
    IntegrityProblem: FLV-4101, FLV-4103 or FLV-4110, the bytes are not what they have to be. ConnectionProblem:
    FLV-1001, nothing says where the store is; and what the store raises.
    """
    if isinstance(task, str | Path) and Path(task).suffix in FILE_SUFFIXES:
        return _from_file(Path(task))
    return model_of(find_version(task, version, settings=settings, home=home, genesis_sha256=genesis_sha256))


def model_of(found: FoundVersion) -> Model:
    """The model of a version that was found."""
    given, genesis, base = found.reference, found.genesis, found.base

    def program() -> str:
        return find_program(found.home, genesis, found.store.get_object, given, say=log.warning)

    return Model(
        arrays=MappingProxyType(arrays_of(base.parameters, genesis.tensor_layout.without_control())),
        sha256=base.sha256,
        task=genesis.task,
        version=base.version,
        reference=given,
        state=MappingProxyType(whole_state(genesis, base.parameters, found.frozen)),
        _find_program=program if given or (genesis.code and found.anchored) else None,
    )


@dataclass(frozen=True, slots=True)
class FoundVersion:
    """A version, and what belongs to it. ``anchored``: its genesis is known by hash, not just what the store has."""

    store: TaskStore
    genesis: Genesis
    base: Base
    frozen: Mapping[str, RawTensor]
    reference: str
    home: Path
    anchored: bool

    @property
    def genesis_sha256(self) -> str:
        """The hash of the task's genesis document, which an auditor trusts."""
        return sha256_hex(self.genesis.canonical())

    def file(self) -> bytes:
        """All of the model, as torch loads it strictly."""
        base = self.base
        return state_file(self.genesis, base.version, base.sha256, base.parameters, self.frozen)


def find_version(
    task: Task | str | Path,
    version: int | None = None,
    *,
    settings: Settings | None = None,
    home: Path | str | None = None,
    genesis_sha256: str | None = None,
) -> FoundVersion:
    """A version of a task, the newest unless told, checked against its hash; arguments and errors of ``load_model``."""
    name = str(task) if isinstance(task, str | Path) else task.name
    folder = resolve_home(home if settings is None else settings.home)
    file = read_task_file(folder, name) if name in task_names(folder) else None
    settings = settings or load_settings(home)
    store = TaskStore(open_object_store(settings.store), name)
    try:
        genesis = store.genesis(genesis_sha256 or (file.genesis_sha256 if file else None))
    except ObjectNotFound:
        raise UsageProblem(
            "FLV-2401",
            f"no task {name!r}",
            where=store.store.describe(),
            hint=_known_tasks(name, folder),
        ) from None
    head = store.head()
    assert head is not None, "the genesis was read, so there is a version 0"
    base = Bases(store, genesis).at(head.version if version is None else version)
    return FoundVersion(
        store=store,
        genesis=genesis,
        base=base,
        frozen=frozen_of(genesis, store.get_object),
        reference=task.reference if not isinstance(task, str | Path) else file.reference if file else "",
        home=folder,
        anchored=bool(genesis_sha256 or file),
    )


def _known_tasks(name: str, home: Path) -> str:
    close = get_close_matches(name, task_names(home), n=1)
    return f"did you mean {close[0]}?" if close else "`fluvial task list` shows those that this machine knows"


def _from_file(path: Path) -> Model:
    state = read_state(path)
    arrays = {name: float32_of(raw) for name, raw in state.items() if raw.dtype in FLOATS}
    return Model(
        arrays=_read_only(arrays), sha256=sha256_hex(path.read_bytes()), state=MappingProxyType(state)
    )


def _read_only(arrays: dict[str, npt.NDArray[np.float32]]) -> Mapping[str, npt.NDArray[np.float32]]:
    for array in arrays.values():
        array.setflags(write=False)
    return MappingProxyType(arrays)
