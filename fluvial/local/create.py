"""Creating a task: keys, first model, policy, genesis, topics. Doing it again with the same arguments changes nothing.

The genesis is committed by one conditional PUT before anything of version 0 is written, so whoever loses a race, or
names a task that exists otherwise, has overwritten nothing.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from aggregation.defences import defence_named
from aggregation.errors import UsageProblem
from aggregation.optimizers import initial_state
from aggregation.policy import NEWEST, Policy
from backends import keys
from backends.kafka.admin import declare_topics
from backends.kafka.reading import LogReader
from backends.kafka.topic_settings import require_right_topics
from backends.object_store import ObjectNotFound
from backends.store.conditional import require_conditional_writes
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import TaskFile, keys_folder, write_task_file
from fluvial.local.carried_program import carried_program
from fluvial.local.control_policy import require_control_policy
from fluvial.local.judging import in_words, metric_of_task
from fluvial.local.noted import Noted, task_file_of
from fluvial.local.origin import Origin, read_origin, require_same_layout
from fluvial.local.policies import layered_policy
from fluvial.local.stack_access import permit_task
from fluvial.local.update_size import check_update_size
from fluvial.local.window_size import check_window_size
from schemas.certificates import CONTROL, NAME_PATTERN, Role
from schemas.checkpoints import encode_model, encode_optimizer
from schemas.manifests import (
    BEFORE_V3,
    BEFORE_V5,
    Code,
    Genesis,
    Metric,
    Region,
)
from schemas.objects import sha256_hex
from schemas.topics import topics_of, updates_topic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aggregation.layout import Layout
    from aggregation.policy import Policy
    from backends.settings import Settings
    from fluvial.terminal.output import Reporter
    from learning import Task

PARTITIONS_MAX: Final = 1024
REGIONS_MAX: Final = 256
OPERATOR: Final = "operator"
MERGER: Final = "merger"
GUARDIAN: Final = "guardian"
NONCE_BYTES: Final = 32
"""Random bytes in a genesis document: no two tasks have the same."""


def worker_name(region: str) -> str:
    """The name in the certificate of a region's workers."""
    return f"worker-{region}"


def create_task(
    settings: Settings,
    *,
    reference: str,
    name: str | None = None,
    regions: Mapping[str, int],
    policy_text: str = "",
    policy_defaults: str = "",
    seed: int = 0,
    given: Mapping[str, Any] | None = None,
    split: tuple[int, float] | None = None,
    origin: str | None = None,
    encrypt_keys: bool = False,
    heartbeats: bool = False,
    output: Reporter,
) -> TaskFile:
    """Create the task that ``reference`` (a shipped name or a .py file) describes; returns what ``task.json`` records.

    ``regions`` maps each region to its number of partitions. ``policy_text`` (TOML) goes before the task
    file's POLICY, and that before ``policy_defaults`` (TOML). ``seed`` draws the first model. ``given`` (settings over
    the file's CONFIG) and ``split`` (devices, alpha) are noted, and stay as noted where they are None. ``origin``
    (TASK@VERSION) is the version whose model is the first one. ``encrypt_keys``: of new keys; ``heartbeats``: a topic.

    Raises UsageProblem: FLV-2403 (another task of this name), 2404 (updates too large), 2405 (regions), 2406 (topics of
    an earlier task), 2001 to 2004 (policy, layout), 22xx (the task file), 3104 (partitions), 6327 and 6328 (origin);
    what Kafka and the store raise when they are away.
    """
    from learning.names import check_task_name
    from learning.task import load_task

    check_regions(regions)
    loaded = load_task(reference, given or {})
    task = check_task_name(name, "--name") if name else loaded.name
    store = TaskStore(open_object_store(settings.store), task)
    existing = _existing(store)
    policy = layered_policy(
        explicit=policy_text,
        task=loaded.policy_overrides,
        defaults=policy_defaults,
        default_format=NEWEST if existing is None else existing.first_policy.format,
    )
    folder, guided = keys_folder(settings.home, task), defence_named(policy.defence.kind).guided
    if existing is not None and not keys.authority_path(folder, CONTROL).exists():
        raise _exists_otherwise(task, store, "its certificate authorities are not on this machine")
    make_keys(folder, regions, guided=guided, keeping=keys.Keeping(settings.key, encrypt_keys))
    program = carried_program(loaded, output)
    first = first_version(
        task,
        loaded,
        regions=regions,
        policy=policy,
        folder=folder,
        seed=seed,
        metric=_metric(existing, loaded, output, seed),
        document_format="" if existing is None else existing.format,
        nonce=existing.nonce if existing else None,
        code=program.code,
        origin=read_origin(settings, origin) if origin else None,
    )
    _check_sizes(first.genesis.tensor_layout, policy, settings)
    if existing and existing != first.genesis:
        raise _exists_otherwise(task, store, _difference(existing, first.genesis))
    _declare_topics(settings, first.genesis, fresh=existing is None, heartbeats=heartbeats, output=output)
    program.keep(settings.home, store)
    if (written := first.write(store)) is None:
        raise _exists_otherwise(task, store, _difference(store.genesis(), first.genesis))
    output.say(_told(written, fresh=existing is None))
    said = Noted(lasting_reference(loaded, reference), seed, given, split, heartbeats)
    return _noted(settings, written, said)


def _check_sizes(layout: Layout, policy: Policy, settings: Settings) -> None:
    check_update_size(layout, policy, settings)
    check_window_size(layout, policy)


def _noted(settings: Settings, genesis: Genesis, noted: Noted) -> TaskFile:
    file = task_file_of(settings.home, genesis, noted)
    write_task_file(settings.home, file)
    return file


def _told(genesis: Genesis, *, fresh: bool) -> str:
    done = "created" if fresh else "was there already, unchanged"
    parameters, regions = genesis.tensor_layout.model_parameters, describe_regions(genesis.partitions)
    return f"task {genesis.task} {done}: {parameters} parameters, regions {regions}{in_words(genesis.metric)}"


def describe_regions(regions: Mapping[str, int]) -> str:
    """``eu:2,us:2``, as the command line takes it."""
    return ",".join(f"{region}:{partitions}" for region, partitions in sorted(regions.items()))


def parse_regions(text: str) -> dict[str, int]:
    """The inverse of ``describe_regions``; a region without a number has two partitions. UsageProblem FLV-2405."""
    regions: dict[str, int] = {}
    for part in text.split(","):
        region, colon, partitions = part.strip().partition(":")
        if region in regions:
            raise _refused_regions(f"region {region!r} is named twice")
        if colon and not partitions.isdecimal():
            raise _refused_regions(f"region {region!r} has {partitions!r} partitions")
        regions[region] = int(partitions) if colon else 2
    check_regions(regions)
    return regions


def check_regions(regions: Mapping[str, int]) -> None:
    """UsageProblem FLV-2405 unless every region has a usable name and 1 to ``PARTITIONS_MAX`` partitions."""
    if not 1 <= len(regions) <= REGIONS_MAX:
        raise _refused_regions(f"{len(regions)} regions, expected 1 to {REGIONS_MAX}")
    for region, partitions in regions.items():
        if region == CONTROL:
            raise _refused_regions(f"{CONTROL!r} is the name of the control authority")
        if not NAME_PATTERN.fullmatch(region):
            raise _refused_regions(
                f"{region!r}: expected a-z 0-9 . _ -, beginning and ending with a letter or digit"
            )
        if not 1 <= partitions <= PARTITIONS_MAX:
            raise _refused_regions(
                f"region {region!r} has {partitions} partitions, expected 1 to {PARTITIONS_MAX}"
            )


def _refused_regions(reason: str) -> UsageProblem:
    return UsageProblem(
        "FLV-2405", f"the regions are refused: {reason}", hint="write them as `--regions eu:2,us:2`"
    )


def _existing(store: TaskStore) -> Genesis | None:
    try:
        return store.genesis()
    except ObjectNotFound:
        return None


def _metric(genesis: Genesis | None, loaded: Task, output: Reporter, seed: int) -> Metric | None:
    """Of a task that is there, its own: another METRIC is another task, and no METRIC changes nothing."""
    if genesis is None:
        return metric_of_task(loaded, output, seed=seed)
    return loaded.metric or genesis.metric if genesis.can_say_metric else None


def make_keys(
    folder: Path,
    regions: Mapping[str, int],
    *,
    guided: bool = False,
    keeping: keys.Keeping = keys.IN_PLAIN_FILES,
) -> None:
    """The CAs of a task's regions and of its control, and a key for every worker, the merger and the operator.

    And for the guardian, of a task whose policy is ``guided``. What is there already is left as it is.
    """
    for authority in (CONTROL, *sorted(regions)):
        keys.create_authority(folder, authority, keeping)
    for region in sorted(regions):
        keys.issue(folder, region, Role.WORKER, worker_name(region), keeping)
    keys.issue(folder, CONTROL, Role.MERGER, MERGER, keeping)
    keys.issue(folder, CONTROL, Role.OPERATOR, OPERATOR, keeping)
    if guided:
        keys.issue(folder, CONTROL, Role.GUARDIAN, GUARDIAN, keeping)


class FirstVersion(NamedTuple):
    """Version 0: the genesis document, the files of its model and optimizer state, and the objects that it names."""

    genesis: Genesis
    model: bytes
    optimizer: bytes
    objects: tuple[bytes, ...]

    def write(self, store: TaskStore) -> Genesis | None:
        """Into the store, objects first; the genesis that stands there then, None where it is another task's.

        One that somebody else has just written, and that differs in its nonce alone, is this task's. UsageProblem
        FLV-4008 where the store would make it twice.
        """
        for data in (self.genesis.first_policy.canonical(), *self.objects):
            store.put_object(data)
        store.commit(0, self.genesis.canonical())
        there = store.genesis()
        if there != msgspec.structs.replace(self.genesis, nonce=there.nonce):
            return None
        require_conditional_writes(store)
        store.write_checkpoint(0, self.model, self.optimizer)
        return there


def first_version(
    task: str,
    loaded: Task,
    *,
    regions: Mapping[str, int],
    policy: Policy,
    folder: Path,
    seed: int,
    metric: Metric | None = None,
    document_format: str = "",
    nonce: str | None = None,
    code: Code | None = None,
    origin: Origin | None = None,
) -> FirstVersion:
    """Everything of version 0.

    ``document_format``: a task that is there already is described in the format that it was made in, and with its
    ``nonce``; a new one (of "") draws its own where none is given. ``code``: the
    archive of its program; formats before v3 cannot say it. ``origin``: the version whose model is the first one.
    """
    from learning.binding import (
        anatomy_for,
        first_parameters,
        genesis_format_for,
        layout_entries,
        model_entry,
    )
    from learning.tensors import first_model

    document_format = document_format or genesis_format_for(loaded)
    drawn = first_model(loaded, seed)
    anatomy = anatomy_for(document_format, loaded, drawn)
    layout, (entry, frozen) = anatomy.task_layout, model_entry(anatomy)
    if layout.control.tensors:
        require_control_policy(policy)
    if origin is not None:
        require_same_layout(origin, layout, entry.frozen)
    values = first_parameters(loaded, drawn, anatomy) if origin is None else origin.parameters
    model = encode_model(values, layout)
    optimizer = encode_optimizer(initial_state(policy.server, layout.trainable.parameters))
    genesis = Genesis(
        task=task,
        regions={
            region: Region(
                partitions=partitions, authority=keys.certificate_pem(keys.authority_path(folder, region))
            )
            for region, partitions in sorted(regions.items())
        },
        control_authority=keys.certificate_pem(keys.authority_path(folder, CONTROL)),
        layout=layout_entries(anatomy),
        model=entry,
        policy=json.loads(policy.canonical()),
        model_sha256=sha256_hex(model),
        optimizer_sha256=sha256_hex(optimizer),
        metric=metric,
        code=code if document_format not in BEFORE_V3 else None,
        parent=origin.parent if origin is not None and document_format not in BEFORE_V3 else None,
        nonce=None if document_format in BEFORE_V5 else nonce or secrets.token_hex(NONCE_BYTES),
        format=document_format,
    )
    return FirstVersion(genesis, model, optimizer, (frozen,) if frozen is not None else ())


def _declare_topics(
    settings: Settings, genesis: Genesis, *, fresh: bool, heartbeats: bool, output: Reporter
) -> None:
    """Declare what is missing; a fresh task may not start on logs that already hold another's records."""
    topics = topics_of(genesis.task, genesis.partitions, guided=genesis.is_guided, heartbeats=heartbeats)
    require_right_topics(settings, [topic.name for topic in topics], fresh=fresh)
    created = set(declare_topics(settings, topics))
    permit_task(settings, genesis.task, genesis.partitions, guided=genesis.is_guided, heartbeats=heartbeats)
    if created:
        output.say(f"declared {len(created)} topics")
    logs = [(updates_topic(genesis.task, region), p) for region, p in genesis.slots]
    inherited = [log for log in logs if log[0] not in created] if fresh else []
    if not inherited:
        return
    with LogReader(settings, f"fluvial-create-{genesis.task}") as reader:
        for topic, partition in inherited:
            _, end = reader.bounds(topic, partition)
            if end > 0:
                raise UsageProblem(
                    "FLV-2406",
                    f"a new task {genesis.task} cannot start on the log of an earlier one: it has {end} records",
                    where=f"{topic}[{partition}]",
                    hint="choose another name with `--name`, or delete the old task's topics",
                )


def _difference(existing: Genesis, wanted: Genesis) -> str:
    found, asked = json.loads(existing.canonical()), json.loads(wanted.canonical())
    names = sorted(name for name in found.keys() | asked.keys() if found.get(name) != asked.get(name))
    return f"it differs in {', '.join(names)}"


def _exists_otherwise(task: str, store: TaskStore, reason: str) -> UsageProblem:
    return UsageProblem(
        "FLV-2403",
        f"there is another task {task} already, and a task cannot be changed: {reason}",
        where=store.store.describe(),
        hint="choose another name with `--name`, or repeat the arguments it was created with",
    )


def lasting_reference(loaded: Task, reference: str) -> str:
    """How another process, started anywhere, finds the task's code again."""
    from learning.task import shipped_tasks

    return reference if reference in shipped_tasks() else str(loaded.path.resolve())
