"""`fluvial park` on the real stack, with a worker that a thread plays: what it writes, refuses, waits for and says."""

from __future__ import annotations

import json
import shutil
import threading
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

import schemas.records
from backends.kafka.reading import LogReader
from backends.keys import signer_path
from backends.skips import find_parking_skip
from backends.tasks import keys_folder
from fluvial import cli
from fluvial.local.create import OPERATOR
from fluvial.proof.audit import audit_task
from schemas.certificates import CONTROL, Role
from schemas.topics import updates_topic
from tests import factories
from tests.small_federation import SmallFederation, declare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from backends.settings import Settings
    from schemas.envelope import Signer

SLOT = ("eu", 0)
WORKER_S = 120.0
POLICY = factories.policy(window={"updates_max": 4}, anomaly={"enabled": False})


@pytest.fixture
def federation(stack: Settings) -> Iterator[SmallFederation]:
    """Two folded updates and two that are not folded yet; the first of these is what makes the fold raise."""
    task = f"skips-{uuid.uuid4().hex[:8]}"
    declare(stack, task, {"eu": 1})
    federation = SmallFederation(stack, task=task, policy=POLICY, partitions={"eu": 1})
    federation.write_task_file()
    write_operator_key(federation)
    for number, name in enumerate(factories.devices(4)):
        federation.append(*SLOT, federation.update("eu", name, seed=number))
        if number == 1:
            federation.fold()
    yield federation
    shutil.rmtree(stack.home / "tasks" / task)  # so that no other test takes it for the newest


def write_operator_key(federation: SmallFederation) -> None:
    """As `fluvial task create` would."""
    folder = keys_folder(federation.settings.home, federation.task)
    path = signer_path(folder, CONTROL, Role.OPERATOR, OPERATOR)
    path.parent.mkdir(parents=True)
    write_key(path, factories.operator_signer(OPERATOR))


def write_key(path: Path, signer: Signer, passphrase: str = "") -> None:
    certificate = x509.load_der_x509_certificate(signer.certificate)
    encryption = (
        serialization.BestAvailableEncryption(passphrase.encode())
        if passphrase
        else serialization.NoEncryption()
    )
    private = signer.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)


def end_of_log(federation: SmallFederation) -> int:
    with LogReader(federation.settings, "test-end") as reader:
        return reader.bounds(updates_topic(federation.task, "eu"), 0)[1]


@contextmanager
def worker(federation: SmallFederation, offset: int, *, has_defect: bool = True) -> Iterator[None]:
    """Obeys the Skip of ``offset`` as soon as it stands in the log; one without the defect folds the record."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            deadline = time.monotonic() + WORKER_S
            with LogReader(federation.settings, "test-worker") as reader:
                while (
                    found := find_parking_skip(reader, federation.trust, federation.task, SLOT, offset)
                ) is None:
                    assert time.monotonic() < deadline, "nobody wrote a Skip"
                    time.sleep(0.05)
            if has_defect:
                federation.parked[SLOT, offset] = found
            federation.fold()
        except BaseException as error:  # noqa: BLE001 - shown below
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(WORKER_S)
    assert not failed, failed


@pytest.fixture
def call(
    federation: SmallFederation, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """Run the command with --json: (exit code, document, stderr)."""

    def run(offset: int, *more: str, reason: str = "it raises") -> tuple[int, dict[str, Any], str]:
        arguments = ["--home", str(federation.settings.home), "park", "--task", federation.task]
        arguments += ["--region", "eu", "--partition", "0"]
        arguments += ["--offset", str(offset), "--reason", reason, "--json", *more]
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return code, json.loads(captured.out), captured.err

    return run


def test_a_skip_is_signed_obeyed_and_audited(federation: SmallFederation, call: Any) -> None:
    with worker(federation, 2):
        code, document, said = call(2, "--yes", reason="  it raises ")
    assert code == 0
    assert (document["offset"], document["skip_offset"], document["reason"]) == (2, 4, "it raises")
    assert document["verdict"]["outcome"] == "skipped"
    assert document["verdict"]["detail"] == "parked by the operator's Skip at offset 4: it raises"
    assert (document["record"]["kind"], document["record"]["role"]) == ("ClientUpdate", "device")
    assert f"fl.{federation.task}.updates.eu[0]@2" in said and document["record"]["signer"] in said
    federation.send(1, seed=900)
    assert audit_task(federation.settings, federation.task_file, jobs=1).identical


def test_what_it_tells_people(federation: SmallFederation, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--home", str(federation.settings.home), "park", "--task", federation.task]
    arguments += ["--region", "eu", "--partition", "0"]
    with worker(federation, 2):
        assert cli.main([*arguments, "--offset", "2", "--reason", "it raises", "--yes"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "eu[0]@2 is skipped: parked by the operator's Skip at offset 4: it raises\n"
    assert f"the Skip stands at fl.{federation.task}.updates.eu[0]@4" in captured.err


def test_nobody_to_ask_and_no_yes_writes_nothing(federation: SmallFederation, call: Any) -> None:
    end = end_of_log(federation)
    code, document, said = call(2)
    assert (code, document["error"]["id"]) == (4, "FLV-6002")
    assert f"the record: fl.{federation.task}.updates.eu[0]@2" in said  # told before it asks
    assert end_of_log(federation) == end


@pytest.mark.parametrize(
    ("offset", "error_id"),
    [(1, "FLV-6430"), (3, "FLV-6431"), (4, "FLV-6202"), (700, "FLV-6202")],
    ids=["folded already", "not come to yet", "the log's end", "beyond it"],
)
def test_what_cannot_be_parked_is_refused(
    federation: SmallFederation, call: Any, offset: int, error_id: str
) -> None:
    end = end_of_log(federation)
    code, document, _ = call(offset, "--yes")
    assert (code, document["error"]["id"]) == (4, error_id)
    assert end_of_log(federation) == end


@pytest.mark.parametrize("reason", ["", "   ", "x" * 201])
def test_a_reason_is_needed_and_bounded(call: Any, reason: str) -> None:
    code, document, _ = call(2, "--yes", reason=reason)
    assert (code, document["error"]["id"]) == (4, "FLV-6001")


def test_another_key_signs_where_it_is_an_operators(
    federation: SmallFederation, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, passphrase = keys_folder(federation.settings.home, federation.task), "of the operator, elsewhere"
    usual, elsewhere = signer_path(folder, CONTROL, Role.OPERATOR, OPERATOR), tmp_path / "operator.pem"
    usual.rename(elsewhere)
    end = end_of_log(federation)
    merger = tmp_path / "merger.pem"
    write_key(merger, factories.merger_signer())
    code, document, _ = call(2, "--yes", "--key", str(merger))
    assert (code, document["error"]["id"]) == (4, "FLV-3203")
    assert end_of_log(federation) == end
    write_key(elsewhere, factories.operator_signer(OPERATOR), passphrase)
    monkeypatch.setenv("FLUVIAL_KEY_PASSPHRASE", passphrase)
    with worker(federation, 2):
        code, document, _ = call(2, "--yes", "--key", str(elsewhere))
    assert (code, document["verdict"]["outcome"]) == (0, "skipped")


def test_without_the_operators_key_nothing_is_written(federation: SmallFederation, call: Any) -> None:
    folder = keys_folder(federation.settings.home, federation.task)
    signer_path(folder, CONTROL, Role.OPERATOR, OPERATOR).unlink()
    end = end_of_log(federation)
    code, document, _ = call(2, "--yes")
    assert (code, document["error"]["id"]) == (4, "FLV-2302")
    assert end_of_log(federation) == end


def test_a_wait_without_a_worker_ends_and_the_skip_stands(federation: SmallFederation, call: Any) -> None:
    code, document, _ = call(2, "--yes", "--timeout", "1")
    assert (code, document["error"]["id"]) == (3, "FLV-6432")
    with LogReader(federation.settings, "test-stands") as reader:
        assert find_parking_skip(reader, federation.trust, federation.task, SLOT, 2) is not None


def test_a_record_that_a_worker_could_fold_meanwhile_is_told(federation: SmallFederation, call: Any) -> None:
    with worker(federation, 2, has_defect=False):
        code, document, _ = call(2, "--yes")
    assert (code, document["error"]["id"]) == (1, "FLV-6433")
    assert "accepted" in document["error"]["message"]


@pytest.mark.parametrize(
    ("value", "told"), [(b"garbage", "not single-object encoded Avro"), (None, "not single-object encoded")]
)
def test_a_record_that_nobody_can_read_can_be_parked(
    federation: SmallFederation, call: Any, value: bytes | None, told: str
) -> None:
    federation.fold()
    offset = federation.append(*SLOT, value)
    with worker(federation, offset):
        code, document, said = call(offset, "--yes")
    assert code == 0 and document["verdict"]["outcome"] == "skipped"
    assert told in document["record"]["problem"] and told in said


def test_a_record_that_makes_our_own_reading_raise_can_be_parked(
    federation: SmallFederation, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The defect may lie in what the command itself would use to describe the record."""
    real, raised = schemas.records.authenticate, list[str]()

    def defective(envelope: Any, *more: Any, **named: Any) -> Any:
        if envelope.kind == "ClientUpdate" and not raised:
            raised.append("once: the worker is another process")
            raise ZeroDivisionError("a defect")
        return real(envelope, *more, **named)

    monkeypatch.setattr(schemas.records, "authenticate", defective)
    with worker(federation, 2):
        code, document, _ = call(2, "--yes")
    assert raised and code == 0
    assert document["record"]["problem"] == "it cannot be read: ZeroDivisionError: a defect"
    assert document["verdict"]["outcome"] == "skipped"
