"""A task file and a task's genesis document: what the one says of the other's model. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from aggregation.errors import UsageProblem
from aggregation.layout import CONTROL
from learning.control import asks_for_control
from learning.kinds.protocol import Anatomy, Flat, ModelTensor
from schemas.manifests import (
    BEFORE_V3,
    CONTROL_GENESIS,
    NEWEST_GENESIS,
    Model,
    StoredObject,
    TensorEntry,
)
from schemas.objects import sha256_hex
from schemas.states import frozen_of
from schemas.tensor_files import RawTensor, write_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from learning.kinds.protocol import Model as LibraryModel
    from learning.task import Task
    from schemas.manifests import Genesis

ReadObject = Callable[[str], bytes]
"""The bytes of an object by its SHA-256, checked against it: ``TaskStore.get_object``."""


def bind(task: Task, genesis: Genesis, read_object: ReadObject) -> Task:
    """The task file for training and evaluating the models of ``genesis``, with its frozen tensors.

    Raises UsageProblem FLV-2213 when the file makes another model, IntegrityProblem FLV-4110 when the frozen object is
    not what the genesis says; what ``read_object`` raises.
    """
    if genesis.format not in BEFORE_V3 and genesis.model.kind != task.kind.name:
        raise UsageProblem(
            "FLV-2213",
            f"the task's models are of the kind {genesis.model.kind}, this file makes one of {task.kind.name}",
            where=str(task.path),
            hint="use the task file that the task was created with",
        )
    return task.bound_to(anatomy_of(genesis, frozen_of(genesis, read_object)))


def anatomy_of(genesis: Genesis, frozen: Mapping[str, RawTensor]) -> Anatomy:
    """What the models of ``genesis`` are made of. Before v3, nothing but the layout is said: all else is the file's."""
    sections = {spec.name: spec.section for spec in genesis.tensor_layout.tensors}
    control = any(section == CONTROL for section in sections.values())
    tensors = tuple(
        ModelTensor(entry.name, entry.shape, sections[entry.name], entry.dtype, entry.nonnegative)
        for entry in genesis.layout
        if sections[entry.name] != CONTROL
    )
    return Anatomy(genesis.model.kind, tensors, genesis.model.tied, frozen, control)


def anatomy_for(document_format: str, task: Task, model: LibraryModel) -> Anatomy:
    """What a task of this genesis format has of ``model``."""
    if document_format not in BEFORE_V3:
        return replace(task.anatomy_of(model), control=document_format == CONTROL_GENESIS)
    from learning.kinds.torch_module import anatomy_before_v3

    return anatomy_before_v3(model)


def first_parameters(task: Task, model: LibraryModel, anatomy: Anatomy) -> Flat:
    """What version 0 of a task has of ``model``, float32[P] of its whole layout: control variates begin as 0."""
    layout = anatomy.task_layout
    flat = np.zeros(layout.parameters, dtype=np.float32)
    flat[: layout.model_parameters] = task.kind.values(model, anatomy)
    return flat


def layout_entries(anatomy: Anatomy) -> tuple[TensorEntry, ...]:
    """The genesis document's layout: the model's tensors, then control variates where there are some."""
    model = tuple(
        TensorEntry(tensor.name, tensor.shape, tensor.section, tensor.dtype, tensor.nonnegative)
        for tensor in anatomy.tensors
    )
    control = anatomy.task_layout.control.tensors if anatomy.control else ()
    return model + tuple(TensorEntry(spec.name, spec.shape, spec.section) for spec in control)


def genesis_format_for(task: Task) -> str:
    """The format in which a new task of this file is described."""
    return CONTROL_GENESIS if asks_for_control(task.config.extra) else NEWEST_GENESIS


def model_entry(anatomy: Anatomy) -> tuple[Model, bytes | None]:
    """What the genesis document says of the model outside of the layout, and the frozen object that it names."""
    frozen = write_tensors(anatomy.frozen) if anatomy.frozen else None
    entry = StoredObject(sha256_hex(frozen), len(frozen)) if frozen is not None else None
    return Model(anatomy.kind, dict(anatomy.tied), entry), frozen
