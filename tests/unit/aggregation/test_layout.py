"""A layout: names, shapes and sections of a model in a fixed order, at a cost that grows with the number of tensors."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from aggregation.codecs import encode_delta
from aggregation.errors import UsageProblem
from aggregation.fold.admission import Admitted, admit
from aggregation.fold.state import initial
from aggregation.fold.transition import fold_into
from aggregation.layout import BUFFERS, CONTROL, SECTIONS, WEIGHTS, Layout, TensorSpec
from aggregation.optimizers import initial_state
from aggregation.policy import policy_from_mapping
from aggregation.server.merge import Checkpoint, merge
from fluvial.proof.checker import arithmetic
from schemas import avro
from schemas.checkpoints import decode_direction, decode_model, encode_direction, encode_model
from tests import factories

MANY = 20_000

MIXED = [("w", (2, 3), WEIGHTS), ("b", (3,), WEIGHTS), ("mean", (3,), BUFFERS), ("steps", (), BUFFERS)]


def test_a_tensor_is_a_weight_unless_it_says_otherwise() -> None:
    layout = Layout.of([("w", (2, 3)), ("b", (3,))])
    assert [spec.section for spec in layout.tensors] == [WEIGHTS, WEIGHTS]
    assert layout == Layout.of([("w", (2, 3), WEIGHTS), ("b", (3,), WEIGHTS)])
    assert TensorSpec("w", (1,)).section == WEIGHTS


def test_a_section_is_one_range_of_the_flat_vector() -> None:
    layout = Layout.of(MIXED)
    assert layout.section(WEIGHTS) == range(9)
    assert layout.section(BUFFERS) == range(9, 13)


def test_sections_tile_the_vector_also_where_some_are_empty() -> None:
    for tensors in (MIXED, MIXED[:2], MIXED[2:]):
        layout = Layout.of(tensors)
        ranges = [layout.section(name) for name in SECTIONS]
        assert [i for one in ranges for i in one] == list(range(layout.parameters))


def test_weights_and_buffers_are_layouts_of_their_own() -> None:
    layout = Layout.of(MIXED)
    assert layout.trainable == Layout.of(MIXED[:2]) and layout.buffers == Layout(Layout.of(MIXED).tensors[2:])
    assert layout.sum_elements == 9 + 10 * 4
    plain = Layout.of(MIXED[:2])
    assert plain.trainable is plain and plain.buffers.tensors == () and plain.sum_elements == 9
    still = Layout.of(MIXED[2:])
    assert still.buffers is still and still.trainable.parameters == 0
    assert pickle.loads(pickle.dumps(layout)).trainable == layout.trainable


def test_a_layout_can_be_made_of_specs() -> None:
    specs = [TensorSpec("w", (2,)), TensorSpec("variance", (2,), BUFFERS, nonnegative=True)]
    assert Layout.of(specs).tensors == tuple(specs)


def test_control_variates_mirror_the_weights_and_stand_last() -> None:
    model = Layout.of(MIXED)
    layout = model.with_control()
    assert layout.control.names == tuple(f"control:{name}" for name in model.trainable.names)
    assert layout.control.shapes == model.trainable.shapes
    assert (layout.trainable, layout.buffers) == (model.trainable, model.buffers)
    assert layout.section(CONTROL) == range(model.parameters, layout.parameters)
    assert layout.model_parameters == model.parameters == model.model_parameters
    assert layout.sum_elements_of(3) == 3 * 9 + 10 * 4 + 9
    assert layout.without_control() == model and model.without_control() is model
    assert model.control.tensors == () and layout.control.control is layout.control
    assert pickle.loads(pickle.dumps(layout)).control == layout.control


def test_there_is_no_other_section() -> None:
    with pytest.raises(KeyError):
        Layout.of(MIXED).section("gradients")


def test_a_section_is_part_of_what_a_layout_is() -> None:
    assert Layout.of([("w", (2,), WEIGHTS)]) != Layout.of([("w", (2,), BUFFERS)])


REFUSED: dict[str, tuple[list[Any], str]] = {
    "nothing": ([], "it has no tensors"),
    "an empty name": ([("", (1,))], "a tensor may not be called ''"),
    "safetensors' own name": ([("__metadata__", (1,))], "a tensor may not be called '__metadata__'"),
    "two of one name": ([("w", (1,)), ("b", (1,)), ("w", (2,))], "two tensors are called 'w'"),
    "two of one name in two sections": (
        [("w", (1,), WEIGHTS), ("w", (1,), BUFFERS)],
        "two tensors are called 'w'",
    ),
    "an empty dimension": ([("w", (2, 0))], "every dimension must be at least 1"),
    "a section that is none": (
        [("w", (1,), "gradients")],
        "is of the section 'gradients'; there are weights, buffers, control",
    ),
    "control variates of some weights only": (
        [("w", (2,)), ("b", (1,)), ("control:w", (2,), CONTROL)],
        "does not have one tensor of the same shape for each of 'weights'",
    ),
    "a control variate of another shape": (
        [("w", (2,)), ("control:w", (1, 2), CONTROL)],
        "does not have one tensor of the same shape",
    ),
    "control variates in another order": (
        [("w", (2,)), ("b", (2,)), ("control:b", (2,), CONTROL), ("control:w", (2,), CONTROL)],
        "does not have one tensor of the same shape",
    ),
    "control variates without weights": (
        [("mean", (2,), BUFFERS), ("control:mean", (2,), CONTROL)],
        "does not have one tensor of the same shape",
    ),
    "a weight that is called like a control variate": (
        [("control:w", (2,)), ("control:control:w", (2,), CONTROL)],
        "tensor 'control:w' is called like a control variate",
    ),
    "a control variate that is never negative": (
        [TensorSpec("w", (2,)), TensorSpec("control:w", (2,), CONTROL, nonnegative=True)],
        "is said to be nonnegative",
    ),
    "buffers behind control variates": (
        [("w", (2,)), ("control:w", (2,), CONTROL), ("mean", (2,), BUFFERS)],
        "stands behind a later section's",
    ),
    "a section in two parts": (
        [("w", (1,), WEIGHTS), ("mean", (1,), BUFFERS), ("b", (1,), WEIGHTS)],
        "tensor 'b' of the section 'weights' stands behind a later section's",
    ),
    "sections in another order": (
        [("mean", (1,), BUFFERS), ("w", (1,), WEIGHTS)],
        "tensor 'w' of the section 'weights' stands behind a later section's",
    ),
    "a weight that is to be nonnegative": (
        [TensorSpec("w", (1,), WEIGHTS, nonnegative=True)],
        "tensor 'w' of the section 'weights' is said to be nonnegative",
    ),
    "too many parameters": ([("w", (1 << 31, 2))], "the limit is 2147483648"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_what_cannot_be_a_models_layout_is_refused(which: str) -> None:
    tensors, problem = REFUSED[which]
    with pytest.raises(UsageProblem, match=problem) as caught:
        Layout.of(tensors)
    assert caught.value.error_id == "FLV-2004"


class CountedName(str):
    """A tensor's name that counts how often it is compared with another."""

    __slots__ = ()
    comparisons = 0

    def __eq__(self, other: object) -> bool:
        CountedName.comparisons += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_names_are_looked_at_a_few_times_each_and_not_once_for_every_other() -> None:
    CountedName.comparisons = 0
    Layout.of([(CountedName(f"tensor {number}"), (1,)) for number in range(2000)])
    assert CountedName.comparisons <= 10 * 2000


def test_a_model_of_very_many_tensors_goes_all_the_way() -> None:
    layout = Layout.of([(f"block.{number}.weight", (2, 3)) for number in range(MANY)])
    policy = policy_from_mapping({"defence": {"kind": "none"}, "updates": {"norm_max": 1e6}})
    rng = np.random.default_rng(1)
    model, delta = (rng.normal(size=layout.parameters).astype(np.float32) for _ in range(2))
    state = initial(
        task=factories.TASK,
        region=factories.REGION,
        partition=0,
        partitions=1,
        layout=layout,
        policy=policy,
        model_sha256=factories.model_sha(0),
    )
    tensors = encode_delta(delta, layout, "int8", rng)
    record = factories.update_record("d-1", tensors=tensors)
    assert avro.decode(avro.encode("ClientUpdate", record))[1]["tensors"] == record["tensors"]
    update = factories.update("d-1", tensors=tensors)
    assert isinstance(admit(state, update), Admitted)
    (verdict,) = fold_into(state, 0, update)
    assert verdict.outcome == "accepted"  # type: ignore[union-attr]
    assert state.window.sums is not None

    parent = Checkpoint(model, initial_state(policy.server, layout.parameters))
    step = merge(
        parent,
        state.window.sums,
        updates=1,
        weight_total=1 << 16,
        policy=policy,
        server=policy.server,
        layout=layout,
    )
    data = encode_model(step.checkpoint.model, layout)
    assert decode_model(data, layout).tobytes() == step.checkpoint.model.tobytes()
    assert np.array_equal(decode_direction(encode_direction(step.reference), layout).q, step.reference.q)

    edges = layout.starts.tolist()
    plain = [
        arithmetic.Tensor(spec.name, spec.shape, edges[t], edges[t + 1])
        for t, spec in enumerate(layout.tensors)
    ]
    assert arithmetic.model_bytes(step.checkpoint.model, plain) == data
    assert arithmetic.direction_bytes(model, step.checkpoint.model, plain) == encode_direction(step.reference)
