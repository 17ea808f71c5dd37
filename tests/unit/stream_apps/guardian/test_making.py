"""A guardian's own work: one guide of the newest version, the same bytes each time, and nothing of the root set."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from aggregation.codecs import direction_of
from aggregation.errors import FluvialError, UsageProblem
from backends import keys
from backends.memory.clock import ManualClock
from backends.memory.log import MemoryReader, MemoryWriter
from backends.memory.store import MemoryStore
from backends.observer import Observer
from backends.store.task_store import TaskStore
from fluvial.local.create import GUARDIAN, MERGER, OPERATOR, first_version, make_keys
from fluvial.session.in_process import memory_log_of
from learning.binding import bind
from learning.root_set import RootSet, root_set_of
from learning.task import Task, load_task
from learning.training import train_locally
from schemas.certificates import CONTROL, Role
from schemas.checkpoints import decode_model
from schemas.guides import guide_in
from schemas.objects import model_key
from schemas.records import GuideAnnouncement, guide_announcement_in
from schemas.topics import guides_topic, models_topic
from stream_apps.credentials import require_not_revoked
from stream_apps.guardian.making import Making
from stream_apps.process_context import ProcessContext
from tests.guardians import guided_policy
from tests.task_files import HEAD, PLAIN

if TYPE_CHECKING:
    from pathlib import Path

REGIONS = {"eu": 1, "us": 1}
TASK = f"{HEAD}\ndef model():\n    torch.manual_seed(0)\n    return {PLAIN}\n"
IDLE = '\ndef train(model, data, config):\n    return {"loss": 0.5}\n'
FAILING = '\ndef train(model, data, config):\n    raise ValueError("no such column")\n'


class Seen(Observer):
    """What a guardian told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def guided(self, version: int, seconds: float) -> None:
        assert seconds >= 0.0
        self.told.append(("guided", version))

    def guide_failed(self, version: int, error: BaseException) -> None:
        del error
        self.told.append(("failed", version))


@dataclass
class Site:
    """A task in memory, whose merger announces what a test likes."""

    folder: Path
    text: str = TASK
    observer: Seen = field(default_factory=Seen)
    clock: ManualClock = field(default_factory=lambda: ManualClock(time.time()))

    def __post_init__(self) -> None:
        file = self.folder / "mine.py"
        file.write_text(self.text)
        loaded = load_task(str(file))
        make_keys(self.folder, REGIONS, guided=True)
        self.first = first_version(
            "mine", loaded, regions=REGIONS, policy=guided_policy(), folder=self.folder, seed=0
        )
        self.store = TaskStore(MemoryStore(), "mine")
        self.first.write(self.store)
        self.task: Task = bind(loaded, self.first.genesis, self.store.get_object)
        self.log = memory_log_of(self.first.genesis, self.clock)
        self.root: RootSet = root_set_of(self.task)
        self.models = [self.first.genesis.model_sha256]

    def context(self, key: str = GUARDIAN) -> ProcessContext:
        keys.issue(self.folder, CONTROL, Role.GUARDIAN, key)
        return ProcessContext.of(
            genesis=self.first.genesis,
            store=self.store,
            writer=MemoryWriter(self.log),
            key_pair=keys.load_key_pair(keys.signer_path(self.folder, CONTROL, Role.GUARDIAN, key)),
            name=key,
            open_reader=lambda _purpose: MemoryReader(self.log),
            clock=self.clock,
            observer=self.observer,
        )

    def making(self, key: str = GUARDIAN) -> Making:
        made = Making(self.context(key), self.task, self.root)
        made.resume()
        return made

    def announce(
        self, version: int, model: bytes | None = None, *, store: bool = True, by: str = MERGER
    ) -> None:
        """A version with this model, else the first one's."""
        from schemas.objects import sha256_hex

        model = self.first.model if model is None else model
        if store:
            self.store.store.put(model_key("mine", version), model)
        keys.issue(self.folder, CONTROL, Role.MERGER, by)
        merger = keys.load_key_pair(keys.signer_path(self.folder, CONTROL, Role.MERGER, by))
        for region in REGIONS:
            record = {
                "task": "mine",
                "region": region,
                "version": version,
                "manifest_sha256": "ab" * 32,
                "model_sha256": sha256_hex(model),
                "policy_sha256": "cd" * 32,
            }
            value = merger.of_task(self.first.genesis.domain).sign("ModelAnnouncement", record)
            self.log.append(models_topic("mine"), 0, None, value, ())

    def revoke(self, role: Role, name: str) -> str:
        """Revoke a certificate in the models topic, as an operator; its serial."""
        path = keys.signer_path(self.folder, CONTROL, Role.OPERATOR, OPERATOR)
        operator = keys.load_key_pair(path).of_task(self.first.genesis.domain)
        serial = keys.certificate_serial(keys.signer_path(self.folder, CONTROL, role, name))
        fields = {"task": "mine", "device_id": "", "certificate_serial": serial, "reason": "stolen"}
        self.log.append(models_topic("mine"), 0, None, operator.sign("Revoke", fields), ())
        return serial

    def hear_all(self, made: Making) -> None:
        for record in self.records(models_topic("mine")):
            made.hear(record)

    def records(self, topic: str) -> list[Any]:
        return list(MemoryReader(self.log).read(topic, 0, 0, self.log.end(topic, 0)))

    def announced(self) -> list[GuideAnnouncement]:
        """The guides that stand in the topic, in order."""
        trust = self.first.genesis.trust
        found = [
            guide_announcement_in(record.value, record.timestamp_ms, trust)
            for record in self.records(guides_topic("mine"))
        ]
        assert all(isinstance(one, GuideAnnouncement) for one in found)
        return found  # type: ignore[return-value]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_guide_is_what_a_device_with_the_root_set_would_have_trained(site: Site) -> None:
    site.announce(0)
    made = site.making()
    assert made.guide_newest()
    (said,) = site.announced()
    genesis = site.first.genesis
    data = site.store.get_object(said.guide_sha256)
    assert len(data) == said.guide_bytes
    guide = guide_in(data, genesis.trust, "mine", genesis.tensor_layout)
    model = decode_model(site.first.model, genesis.tensor_layout)
    config = site.task.config.at(seed=0, version=0)
    delta = train_locally(site.task, model, site.root.examples, config).delta
    layout = genesis.tensor_layout.trainable
    expected = direction_of(delta[: layout.parameters].astype(np.float64), layout)
    assert (guide.version, guide.model_sha256) == (0, genesis.model_sha256)
    assert (guide.direction.q.tobytes(), guide.direction.scales) == (expected.q.tobytes(), expected.scales)
    assert site.observer.told == [("guided", 0)]


def test_nothing_of_the_root_set_is_in_what_it_writes(site: Site) -> None:
    site.announce(0)
    assert site.making().guide_newest()
    written = [record.value for record in site.records(guides_topic("mine"))]
    written += [site.store.store.get(key) for key in site.store.store.list("mine/objects/")]
    for example in (*site.root.examples.x, site.root.examples.y):
        assert not any(example.tobytes() in one for one in written)


def test_the_same_version_gives_the_same_bytes(site: Site) -> None:
    site.announce(0)
    first = site.making()
    first.guide_newest()
    again = site.making()
    again._made.clear()  # as if it had not found its own
    again.guide_newest()
    one, other = site.announced()
    assert one.guide_sha256 == other.guide_sha256


def test_one_that_starts_again_makes_no_guide_twice_and_goes_on(site: Site) -> None:
    site.announce(0)
    site.making().guide_newest()
    for _ in range(100):
        site.log.append(guides_topic("mine"), 0, None, b"junk of anybody", ())
    again = site.making()
    assert (again.guided, again.is_behind, again.guide_newest()) == (0, False, False)
    site.announce(1)
    site.hear_all(again)
    assert again.guide_newest()
    assert site.observer.told == [("guided", 0), ("guided", 1)]


def test_only_the_newest_of_many_versions_is_guided(site: Site) -> None:
    for version in range(5):
        site.announce(version)
    made = site.making()
    site.hear_all(made)
    assert made.guide_newest()
    assert not made.guide_newest()
    assert [one.version for one in site.announced()] == [4]


def test_two_guardians_make_a_guide_each(site: Site) -> None:
    site.announce(0)
    for key in (GUARDIAN, "another"):
        assert site.making(key).guide_newest()
    one, other = site.announced()
    assert (one.signer.name, other.signer.name) == (GUARDIAN, "another")
    assert one.guide_sha256 != other.guide_sha256


def test_what_nobody_of_the_task_announced_is_not_guided(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.log.append(models_topic("mine"), 0, None, b"junk", ())
    made = site.making()
    with caplog.at_level(logging.WARNING, "fluvial.guardian"):
        site.hear_all(made)
    assert not made.guide_newest()
    assert "ignored announcement 0" in caplog.text


@pytest.mark.parametrize(
    ("train", "why"), [(IDLE, "points nowhere"), (FAILING, "FLV-2208")], ids=["idle", "failing"]
)
def test_a_version_without_a_guide_is_told_and_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, train: str, why: str
) -> None:
    site = Site(tmp_path, TASK + train)
    site.announce(0)
    made = site.making()
    with caplog.at_level(logging.ERROR, "fluvial.guardian"):
        assert made.guide_newest()
    assert why in caplog.text
    assert site.observer.told == [("failed", 0)]
    assert site.announced() == []
    assert not made.guide_newest()


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_model_that_cannot_be_read_now_is_waited_for_and_a_newer_one_is_guided(
    site: Site, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    site.announce(1, b"a model that the store has not", store=False)
    if damage == "damaged":
        site.store.store.put(model_key("mine", 1), b"something else")
    made = site.making()
    with caplog.at_level(logging.WARNING, "fluvial.guardian"):
        assert not made.guide_newest()
    assert made.is_behind
    assert "waiting to read version 1" in caplog.text
    site.announce(2)
    site.hear_all(made)
    assert made.guide_newest()
    assert site.observer.told == [("guided", 2)]


def test_an_outage_between_object_and_announcement_leaves_nothing_half_said(site: Site) -> None:
    """The object is there and nobody was told: who starts again makes the same one, and tells of it."""
    site.announce(0)
    made = site.making()

    def killed(*_: object, **__: object) -> None:
        raise FluvialError("FLV-9000", "the process ends here")

    made._context.writer.append = killed  # type: ignore[method-assign, assignment]
    with pytest.raises(FluvialError):
        made.guide_newest()
    objects = set(site.store.store.list("mine/objects/"))
    again = site.making()
    assert again.guide_newest()
    assert set(site.store.store.list("mine/objects/")) == objects
    assert len(site.announced()) == 1


def test_what_a_revoked_merger_announces_is_not_guided_and_the_guardian_hears_of_its_own_end(
    site: Site,
) -> None:
    site.announce(0)
    made = site.making()
    assert made.guide_newest()
    serials = [site.revoke(role, name) for role, name in ((Role.MERGER, MERGER), (Role.GUARDIAN, GUARDIAN))]
    site.announce(1)
    site.hear_all(made)
    assert not made.is_behind
    assert set(made.revoked) == {f"certificate:{serial}" for serial in serials}
    identity = site.first.genesis.trust.identify(made._context.signer.certificate)
    with pytest.raises(UsageProblem, match="revoked"):
        require_not_revoked(identity, made.revoked)
