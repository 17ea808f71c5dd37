"""A merger mixes in what updates answered: it reads versions' models by their hashes, also when it adopts a version."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aggregation.fold.bases import Base
from aggregation.server.mixing import MixedBase, mix_into, mixed_bases
from aggregation.weights.fixed_point import weight_after
from schemas.checkpoints import encode_model
from schemas.objects import model_key
from stream_apps.merger.merger import Merger
from stream_apps.merger.models import Models, bases_of
from stream_apps.process_context import ProcessContext
from tests import factories
from tests.learned import V6, lived, policy_of
from tests.small_federation import SmallFederation

POLICY = policy_of(V6, staleness={"kind": "hinge", "hinge_versions": 1}, server={"mixing": True})


@pytest.fixture
def federation() -> SmallFederation:
    return lived(POLICY)


def context_of(one: SmallFederation) -> ProcessContext:
    return ProcessContext.of(
        genesis=one.genesis,
        store=one.objects,
        writer=one.writer,
        key_pair=factories.merger_signer(),
        name="m-2",
        open_reader=one.open_reader,
        clock=one.clock,
    )


def test_a_version_whose_files_have_gone_is_mixed_again_to_the_same_bytes(
    federation: SmallFederation,
) -> None:
    objects, last = federation.objects, federation.version
    key = model_key(federation.task, last)
    before = objects.store.get(key)
    objects.store.put(key, b"gone")
    Merger(context_of(federation)).resume()
    assert objects.store.get(key) == before


def test_what_an_adopted_version_mixed_in_is_what_its_windows_say(federation: SmallFederation) -> None:
    context, last = context_of(federation), federation.manifests[-1]
    found = list(bases_of(context, last, POLICY))
    assert len(found) > 1
    assert sum(one.weight for one in found) < last.weight_total, "some answered the parent"
    assert list(bases_of(context, last, policy_of(V6))) == []


def test_a_model_that_is_missing_or_another_is_waited_for(
    federation: SmallFederation, caplog: pytest.LogCaptureFixture
) -> None:
    models, store = Models(context_of(federation)), federation.objects.store
    assert models.read(0) is models.read(0)
    key = model_key(federation.task, 1)
    right, clock = store.get(key), federation.clock
    store.put(key, store.get(model_key(federation.task, 2)))
    sleep = clock.sleep

    def restored(seconds: float) -> None:
        store.put(key, right)
        sleep(seconds)

    clock.sleep = restored  # type: ignore[method-assign]
    assert encode_model(models.read(1), federation.layout) == right
    assert "waiting to read the model of version 1, which updates answered" in caplog.text


def test_bases_weigh_what_lateness_leaves_and_the_parent_and_dropped_windows_bring_none() -> None:
    window = factories.aggregate("eu", 0, 0)
    windows = [
        (replace(window, bases=(Base(1, 2, 3), Base(4, 1, 65536))), 65536),
        (replace(window, bases=(Base(0, 1, 1), Base(1, 1, 65536), Base(5, 9, 9 << 16))), 1000),
        (replace(window, bases=(Base(2, 1, 65536),)), 0),
    ]
    read = {number: np.full(2, number, np.float32) for number in range(6)}
    found = list(mixed_bases(windows, POLICY, 5, read.__getitem__))
    expected = {0: weight_after(1, 1000), 1: 3 + weight_after(65536, 1000), 4: 65536}
    assert [(int(one.model[0]), one.weight) for one in found] == list(expected.items())
    assert expected[0] == 1, "what counts weighs something"


def test_it_is_done_in_float64_base_by_base() -> None:
    random = np.random.default_rng(2)
    x = random.normal(size=70_000).astype(np.float32)
    bases = [
        MixedBase(int(random.integers(1, 1 << 20)), random.normal(size=x.size).astype(np.float32))
        for _ in range(3)
    ]
    delta = random.normal(size=x.size)
    expected = delta.copy()
    for place in (0, 1, 32_767, 32_768, 69_999):
        for weight, model in bases:
            factor = (float(weight) / 65536.0) / 7.0
            expected[place] = expected[place] + factor * (float(model[place]) - float(x[place]))
    mix_into(delta, x, bases, 7.0)
    for place in (0, 1, 32_767, 32_768, 69_999):
        assert delta[place] == expected[place]
