"""The runbooks' commands that end by themselves, run as they stand in one federation; of the others, why they are not.

What a page cannot know is put in its place: the task's name, an offset, a version, a device, a serial. Each command is
run once, in the order of what it changes; the last audit finds everything identical.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from minio import Minio

from backends import keys
from backends.object_store import ObjectNotFound
from backends.store.http import open_pool
from learning.binding import anatomy_for
from learning.task import load_task
from learning.tensors import first_model
from schemas.certificates import CONTROL, Role
from schemas.manifests import NEWEST_GENESIS
from schemas.objects import object_key
from tests import factories
from tests.integration.pipeline import ROOT, Federation, run_command
from tests.requirements import require_minio
from tests.unit.house.test_runbooks import FAULTS, INDEX, PYTHON, blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aggregation.layout import Layout
    from backends.settings import Settings

POLICY = factories.policy(
    format="fluvial/policy/v3",
    window={"updates_max": 4, "seconds_max": 3600.0},
    buffer={"updates": 4, "seconds_max": 3600.0},
)
DEVICES = 4
GOES_ON = "it goes on until it is stopped: tests of its own start and kill it"
NOT_RUN = {
    r"fluvial (worker|merger|evaluator|guardian|fleet|canary) .*": GOES_ON,
    r"fluvial (up|down)": "it starts or stops the stack on which other tests are: test_stack.py, test_outages.py",
    r"fluvial park .*": "it needs a record that makes the fold raise: test_park_command.py",
    r"fluvial pardon .*": "it needs a device in quarantine: test_suspects.py",
    r"fluvial task discard .*": "it needs a version that somebody planted: test_planted.py",
    r"fluvial task stop .*": "it stops processes of other tests: test_task_life.py",
    r"fluvial --home .* (worker|merger) .*": "it is another release's: test_rolling_upgrade.py",
}
"""Commands of blocks, and the reason why this test leaves them out."""
ORDER = (
    "inspect",
    "devices",
    "model",
    "task",
    "versions --task digits-2",
    "ca list",
    "ca renew",
    "revoke",
    "audit",
)
"""What changes something comes late, and the audits last of all."""

pytestmark = pytest.mark.timeout(600)


def block_commands() -> list[str]:
    """Each `fluvial ...` of the runbooks' blocks, without what belongs to the shell around it; each once."""
    found = []
    for page in (*FAULTS, INDEX):
        for block in blocks(page):
            for line in PYTHON.sub("", block).splitlines():
                found += re.findall(r"^(?:\.venv/bin/)?(fluvial .*)$", line.strip())
    return sorted({re.split(r" [|>&]|  +#", command)[0] for command in found})


def reason_not_to_run(command: str) -> str:
    return next((why for pattern, why in NOT_RUN.items() if re.fullmatch(pattern, command)), "")


def test_a_reason_is_of_a_command_that_there_is() -> None:
    unneeded = [one for one in NOT_RUN if not any(re.fullmatch(one, command) for command in block_commands())]
    assert unneeded == []


@pytest.fixture(scope="module")
def federation(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Two regions, two versions, a refusal in each; nothing of it runs any more."""
    folder = tmp_path_factory.mktemp("runbooks")
    federation = Federation(stack, folder, {"eu": 1, "us": 1}, POLICY, layout=layout_of_digits())
    keys.issue(federation.keys, CONTROL, Role.GUARDIAN, "guardian")
    try:
        federation.start("worker", "worker-eu-0", "--region", "eu")
        federation.start("worker", "worker-us-0", "--region", "us")
        federation.start("merger", "merger-0")
        for version in range(2):
            for region in ("eu", "us"):
                federation.append((region, 0), b"junk")
            for number in range(DEVICES):
                update = federation.update(f"d-{number}", base=version, seed=number)
                federation.append(("eu", 0), update)
            federation.await_version(version + 1)
            federation.await_told(version + 1)
        for slot in federation.slots:
            federation.await_verdicts(slot, len(federation.log(slot)) - 1)
        for one in federation.running:
            assert one.stop() == 0, one.log
        yield federation
    finally:
        federation.end()


def layout_of_digits() -> Layout:
    """The shipped task's, so that another task may begin with a version of this one."""
    task = load_task("digits")
    layout: Layout = anatomy_for(NEWEST_GENESIS, task, first_model(task, 0)).layout
    return layout


def as_here(command: str, federation: Federation) -> list[str]:
    """A command's words, with what is so in this federation."""
    verdicts = federation.verdicts(("eu", 0))
    barrier = next(one.offset for one in verdicts if one.detail.startswith("barrier to version 1 "))
    update = next(one.offset for one in verdicts if one.device_id == "d-1")
    worker = keys.signer_path(federation.keys, "eu", Role.WORKER, "worker-eu")
    changes = {
        r"--name digits-2 --regions": f"--name {federation.task}-3 --regions",
        r"\bdigits-2\b": f"{federation.task}-2",
        r"\bdigits@\d+": f"{federation.task}@1",
        r"(--task|task stop|ca list --task) digits\b": rf"\1 {federation.task}",
        r"inspect eu 0 552\b": f"inspect eu 0 {barrier}",
        r"inspect eu 0 \d\d\d\b": f"inspect eu 0 {update}",
        r"inspect us 0 \d+\b": "inspect us 0 0",
        r"lineage \d+\b": "lineage 1",
        r"--version \d+\b": "--version 1",
        r"\bd-17f3\b": "d-1",
        r"--serial \S+ (.*) w-2$": rf"--serial {keys.certificate_serial(worker)} \1 worker-eu",
    }
    for pattern, ours in changes.items():
        command = re.sub(pattern, ours, command)
    words = shlex.split(command)[1:]
    return [*words, "--yes"] if words[0] == "revoke" else words


def place(command: str) -> int:
    words = command.removeprefix("fluvial ")
    return next((number for number, one in enumerate(ORDER, 1) if words.startswith(one)), 0)


def test_every_other_command_does_what_it_says(federation: Federation, tmp_path: Path) -> None:
    ours = sorted((one for one in block_commands() if not reason_not_to_run(one)), key=place)
    assert len(ours) >= 25
    failed, done = [], set[tuple[str, ...]]()
    for command in ours:
        words = as_here(command, federation)
        if tuple(words) in done:
            continue
        done.add(tuple(words))
        ended = run_command(federation.settings.home, *words, cwd=tmp_path)
        if ended.returncode != 0 or not (ended.stdout or ended.stderr):
            failed.append(
                f"{command}\n{words}\n{ended.returncode}: {ended.stdout[-1500:]}{ended.stderr[-1500:]}"
            )
    assert failed == [], "\n\n".join(failed)
    assert (tmp_path / "good.safetensors").stat().st_size > 0


@pytest.mark.parametrize(("page", "number"), [("damaged-object", 0), ("README", 0)])
def test_their_programs_run(federation: Federation, page: str, number: int) -> None:
    """But for the third of damaged-object, which takes models away for a merger to put back."""
    require_minio(federation.settings)
    assert program_of(federation, page, number)


def program_of(federation: Federation, page: str, number: int) -> str:
    """What a page's program says, once it has ended well."""
    (found,) = [one for one in (*FAULTS, INDEX) if one.stem == page]
    program = [program for block in blocks(found) for program in PYTHON.findall(block)][number]
    heads = [
        head
        for block in blocks(found)
        for head in re.findall(r"^\S*python - ?(.*)<<'PY'$", block, re.MULTILINE)
    ]
    words = [re.sub(r"\bdigits\b", federation.task, word) for word in heads[number].split()]
    words = [re.sub(r"versions/\d+/", "versions/1/", word) for word in words]
    done = subprocess.run(
        [sys.executable, "-", *words],
        input=program,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "FLUVIAL_HOME": str(federation.settings.home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: str = done.stdout
    return said


def test_what_the_store_has_lost_is_folded_again(federation: Federation) -> None:
    require_minio(federation.settings)
    lost = federation.aggregates(("eu", 0))[0].sum_sha256
    store = federation.settings.store
    client = Minio(
        store.endpoint,
        store.access_key,
        store.secret_key,
        secure=store.secure,
        region=store.region,
        http_client=open_pool(store),
    )
    client.remove_object(store.bucket, object_key(federation.task, lost))
    with pytest.raises(ObjectNotFound):
        federation.store.get_object(lost)
    assert f"eu[0]: wrote {lost} (FLV-" in program_of(federation, "damaged-object", 1)
    assert federation.store.get_object(lost)
