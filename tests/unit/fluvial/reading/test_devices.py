"""Who is suspected, why, and since when: read from the newest windows, whatever others have put beside them."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from rich.console import Console

from aggregation.errors import UsageProblem
from aggregation.fold.events import Verdict
from aggregation.reasons import Reason, because
from fluvial.commands.suspects import show_devices
from fluvial.reading.devices import WINDOWS_READ, Devices, DeviceStanding, read_devices
from fluvial.reading.task_view import TaskView
from fluvial.terminal.output import Output
from schemas.objects import object_key
from schemas.topics import aggregates_topic, verdicts_topic
from stream_apps.worker.ticking import REFUSALS_S
from tests import factories
from tests.small_federation import IN_MEMORY, PARTITIONS, SmallFederation

if TYPE_CHECKING:
    from backends.kafka.reading import LogReader

REFUSALS, VERSIONS = 3, 8
LIAR, *HONEST = factories.devices(4, partition=0, partitions=PARTITIONS["eu"])
"""Devices of eu[0]: the first sends updates of zeros."""


def federation_of(**sections: Any) -> SmallFederation:
    defence = {"quarantine_refusals": REFUSALS, "quarantine_versions": VERSIONS}
    given = {"format": "fluvial/policy/v3", "window": {"updates_max": 50}, "defence": defence} | sections
    return SmallFederation(policy=factories.policy(**given))


def zeros(federation: SmallFederation, device: str) -> bytes:
    layout = federation.layout
    nothing = factories.encoded(np.zeros(layout.parameters, np.float32), "float32", layout=layout)
    return federation.update("eu", device, tensors=nothing, codec="float32")


def play(federation: SmallFederation, versions: int, *, liar: str = LIAR) -> None:
    """Versions of good updates of everybody, and of zeros by one."""
    for _ in range(versions):
        federation.append("eu", 0, zeros(federation, liar))
        for number, device in enumerate(HONEST):
            seed = federation.version * 100 + number
            federation.append("eu", 0, federation.update("eu", device, seed=seed))
        federation.close_windows()
        federation.fold()
        federation.merge()


def seal(federation: SmallFederation) -> None:
    """Windows with the newest barriers and Revokes in them."""
    federation.fold()
    federation.clock.sleep(REFUSALS_S)
    federation.close_windows()
    federation.fold()


def view_of(federation: SmallFederation) -> TaskView:
    reader = cast("LogReader", federation.open_reader("reading"))
    return TaskView(IN_MEMORY, federation.task_file, federation.objects, federation.genesis, reader)


def read(federation: SmallFederation, *, quarantined: bool = False, limit: int = 20) -> Devices:
    view = view_of(federation)
    return read_devices(view, list(view.genesis.slots), quarantined=quarantined, limit=limit)


def of(found: Devices, device: str) -> DeviceStanding:
    (one,) = [one for one in found.shown if one.device_id == device]
    return one


def said(found: Devices, *, quarantined: bool = False, json_too: bool = False) -> tuple[int, str, str]:
    output = Output(json=json_too)
    output.out, output.err = (Console(file=io.StringIO(), width=1000) for _ in range(2))
    code = show_devices(output, found, quarantined=quarantined)
    assert isinstance(output.out.file, io.StringIO) and isinstance(output.err.file, io.StringIO)
    return code, output.out.file.getvalue(), output.err.file.getvalue()


@pytest.fixture(scope="module")
def suspected() -> SmallFederation:
    """Two of the liar's updates were anomalous; the third would bring it into quarantine."""
    federation = federation_of()
    play(federation, REFUSALS - 1)
    return federation


@pytest.fixture(scope="module")
def held() -> SmallFederation:
    """The liar is in quarantine, and sends on."""
    federation = federation_of()
    play(federation, REFUSALS + 1)
    return federation


def test_the_most_suspected_stands_first_with_its_reason(suspected: SmallFederation) -> None:
    found = read(suspected)
    first = found.shown[0]
    assert (first.device_id, first.slot) == (LIAR, ("eu", 0))
    assert (first.accepted, first.anomalous, first.scored) == (0, REFUSALS - 1, REFUSALS - 1)
    assert (first.quarantined, first.since, first.until, first.revoked) == (False, None, None, False)
    assert first.refusal is not None
    assert first.refusal.verdict.because.reason is Reason.NO_CHANGE
    assert found.total == 1 + len(HONEST)
    for device in HONEST:
        one = of(found, device)
        assert (one.accepted, one.anomalous, one.scored) == (REFUSALS - 1, 0, REFUSALS - 1)
        assert one.refusal is None


def test_a_quarantine_says_since_when_and_until(held: SmallFederation) -> None:
    found = read(held)
    first = found.shown[0]
    began = REFUSALS - 1  # the third anomalous update came in at version 2
    assert (first.device_id, first.since, first.until) == (LIAR, began, began + VERSIONS)
    assert (first.anomalous, first.scored) == (0, 0)
    assert first.until == held.states["eu", 0].shares.quarantined[LIAR]
    only = read(held, quarantined=True)
    assert [one.device_id for one in only.shown] == [LIAR] and only.total == 1
    code, text, _ = said(found)
    assert code == 0
    line = next(line for line in text.splitlines() if line.startswith(LIAR))
    assert f"since version {began}, until {began + VERSIONS}" in line and "eu[0]" in line
    assert first.refusal is not None and first.refusal.verdict.detail in line
    assert f"showing {found.total} of {found.total}   1 in quarantine" in text


def test_a_quarantine_that_is_over_is_not_shown() -> None:
    federation = federation_of(defence={"quarantine_refusals": REFUSALS, "quarantine_versions": 1})
    play(federation, REFUSALS)
    found = read(federation, quarantined=True)
    assert found.shown == () and found.total == 0
    assert "no device is in quarantine" in said(found, quarantined=True)[1]


def test_what_was_accepted_counts_for_eight_versions_and_is_forgotten_then() -> None:
    federation = federation_of()
    once, *others = HONEST
    federation.append("eu", 0, federation.update("eu", once, seed=7))
    seen = []
    for _ in range(10):
        for number, device in enumerate(others):
            seed = federation.version * 100 + number
            federation.append("eu", 0, federation.update("eu", device, seed=seed))
        federation.close_windows()
        federation.fold()
        federation.merge()
        seen.append([one.accepted for one in read(federation).shown if one.device_id == once])
    assert seen == [[1]] * 7 + [[]] * 3
    assert {one.accepted for one in read(federation).shown} == {7}


def test_a_limit_says_how_many_there_are(held: SmallFederation) -> None:
    found = read(held, limit=2)
    assert len(found.shown) == 2 and found.total == 1 + len(HONEST)
    assert found.shown == read(held).shown[:2]
    assert f"showing 2 of {found.total} " in said(found)[1]


def test_a_region_is_its_partitions_and_no_other(held: SmallFederation) -> None:
    found = read_devices(view_of(held), [("us", 0)], quarantined=False, limit=20)
    assert found.shown == () and [one.slot for one in found.partitions] == [("us", 0)]


def test_the_document_has_all_of_it_as_json_holds_it(held: SmallFederation) -> None:
    document = json.loads(json.dumps(read(held).document(), allow_nan=False))
    assert (document["task"], document["total"], document["shown"]) == (held.task, 4, 4)
    assert (document["accepted_in_versions"], document["scored_max"]) == (8, 8)
    first = document["devices"][0]
    assert first["device_id"] == LIAR and (first["region"], first["partition"]) == ("eu", 0)
    assert (
        first["quarantined"] is True and first["quarantined_until"] == first["quarantined_since"] + VERSIONS
    )
    assert first["last_anomalous"]["reason"] == "no_change"
    assert first["last_anomalous"]["offset"] < held.states["eu", 0].next_offset
    partition = next(one for one in document["partitions"] if (one["region"], one["partition"]) == ("eu", 0))
    assert (partition["devices"], partition["quarantined"], partition["problem"]) == (4, 1, None)
    assert partition["version"] == held.version


def test_a_device_that_was_revoked_is_shown_as_revoked() -> None:
    federation = federation_of()
    play(federation, 1)
    by = federation.signer(factories.operator_signer())
    federation.append("eu", 0, factories.revoke_bytes(LIAR, by=by, task=federation.task))
    federation.append("eu", 0, zeros(federation, LIAR))
    seal(federation)
    one = of(read(federation), LIAR)
    assert one.revoked and one.document()["revoked"] is True
    assert "revoked" in said(read(federation))[1]


@pytest.mark.parametrize("name", ["d\x1b]0;mine\x07\x1b[2J", "d\nd-0001  eu[0]  8  0 of 8", "d\u202eevil"])
def test_a_terminal_is_shown_what_a_device_is_called_and_does_not_obey_it(
    name: str, suspected: SmallFederation
) -> None:
    found = read(suspected)
    refusal = found.shown[0].refusal
    assert refusal is not None
    hostile = DeviceStanding(("eu", 0), name, 1, 2, 3, None, None, revoked=False, refusal=refusal)
    _, text, _ = said(Devices(found.task, found.partitions, (hostile,), 1))
    assert not any(sign in text for sign in ("\x1b", "\x07", "\u202e"))
    assert len(text.splitlines()) == 3
    document = json.dumps(hostile.document())
    assert document.isascii() and json.loads(document)["device_id"] == name


@pytest.mark.parametrize(
    ("sections", "because_of"),
    [
        ({"format": "fluvial/policy/v2", "defence": {}}, "fluvial/policy/v2, before v3"),
        ({"shares": {"per_version": 0}}, "shares.per_version is 0"),
    ],
)
def test_a_task_that_keeps_no_shares_says_so(sections: dict[str, Any], because_of: str) -> None:
    if "defence" in sections:
        federation = SmallFederation(policy=factories.policy(window={"updates_max": 50}))
    else:
        federation = federation_of(**sections)
    with pytest.raises(UsageProblem, match=because_of) as before:
        read(federation)
    assert before.value.error_id == "FLV-6208" and "--outcome anomalous" in before.value.hint
    federation.send(1)
    seal(federation)
    with pytest.raises(UsageProblem, match="keeps no shares"):
        read(federation)


def test_before_the_first_window_nothing_is_known_and_that_is_said() -> None:
    found = read(federation_of())
    assert found.shown == () and all(one.window is None for one in found.partitions)
    code, text, err = said(found)
    assert (code, text) == (0, "")
    assert "eu[0] has no window yet" in err and "us[0] has no window yet" in err


def test_a_partition_whose_snapshot_is_damaged_hides_no_other() -> None:
    federation = federation_of()
    play(federation, 1)
    federation.send(1)
    seal(federation)
    (window,) = [one.window for one in read(federation).partitions if one.slot == ("us", 0)]
    assert window is not None
    federation.objects.store.put(object_key(federation.task, window.state_sha256), b"damaged")
    found = read(federation)
    assert {one.slot[0] for one in found.shown} == {"eu"}
    broken = next(one for one in found.partitions if one.slot == ("us", 0))
    assert broken.problem is not None and broken.document()["problem"]["id"] == broken.problem.error_id
    code, _, err = said(found)
    assert code == 1 and "us[0] is not shown" in err and broken.problem.error_id in err


def test_junk_behind_the_windows_and_among_the_verdicts_hides_nobody() -> None:
    federation = federation_of()
    play(federation, REFUSALS - 1)
    before = read(federation)
    for number in range(3 * WINDOWS_READ):
        federation.writer.append_now(aggregates_topic(federation.task, "eu"), b"x%d" % number, partition=0)
    verdicts = verdicts_topic(federation.task, "eu")
    beyond = Verdict(1 << 40, "anomalous", because=because(Reason.NO_CHANGE), device_id=LIAR)
    for value in (b"junk", factories.verdict_bytes(beyond)):
        federation.writer.append_now(verdicts, value, partition=0)
    after = read(federation)
    assert after.shown == before.shown
    assert sum(one.strays for one in after.partitions) == 2
    assert "2 records among the verdicts of eu[0] are not of this log" in said(after)[2]


def test_a_quarantine_that_an_operator_lifts_says_so_until_a_window_has_it_and_names_the_command() -> None:
    federation = federation_of(format="fluvial/policy/v5")
    play(federation, REFUSALS)
    first = read(federation).shown[0]
    assert first.quarantined and first.until is not None
    assert "fluvial pardon DEVICE" in said(read(federation))[2]
    operator = federation.signer(factories.operator_signer())
    value = factories.pardon_bytes(LIAR, first.until, by=operator, task=federation.task)
    at = federation.append("eu", 0, value)
    federation.fold()
    lifted = of(read(federation), LIAR)
    assert (lifted.quarantined, lifted.until, lifted.lifted) == (False, first.until, at)
    assert lifted.document()["lifted_at"] == at
    assert f"lifted @{at}" in said(read(federation))[1]
    assert read(federation, quarantined=True).total == 0
    seal(federation)
    federation.append("eu", 0, federation.update("eu", HONEST[0], seed=7777))
    federation.close_windows()
    federation.fold()
    after = of(read(federation), LIAR)
    assert (after.quarantined, after.until, after.lifted) == (False, None, None)


def test_where_no_pardon_is_known_none_is_named(held: SmallFederation) -> None:
    assert "pardon" not in said(read(held))[2]
