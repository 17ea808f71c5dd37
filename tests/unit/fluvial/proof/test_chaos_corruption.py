"""Who has named a corruption: a message that says what is wrong with the damaged thing, and no other."""

from __future__ import annotations

import pytest

from fluvial.proof.chaos.corruption import _LOG_WORDS, _OBJECT_WORDS, _Damage, _naming_message

KEY = "digits/objects/ab/abcd"


def damage_of(target: str, words: tuple[str, ...]) -> _Damage:
    return _Damage(
        kind="some",
        target=target,
        names=(target,),
        words=words,
        readers=(),
        waits_for_readers=True,
        harm=str,
        mend=lambda: None,
    )


OBJECT = damage_of(KEY, _OBJECT_WORDS)
LOG = damage_of("fl.digits.updates.us[1]", _LOG_WORDS)
AT = "2026-01-01 10:00:00,000"

NOTICED = [
    (OBJECT, f"{AT} W fluvial: waiting to resume us[1], 0 s: {KEY} is not what its hash says: expected ab\n"),
    (OBJECT, f"{AT} E fluvial: the merger stops.\nerror[FLV-4103]: {KEY} differs\nhint: restore it\n"),
    (
        LOG,
        f"{AT} E fluvial.worker: fl.digits.updates.us[1] stops at offset 9.\nerror[FLV-3204]: it was cut\n",
    ),
]
UNNOTICED = [
    (OBJECT, f"{AT} I fluvial: read {KEY}\n{AT} W fluvial: other is not what its hash says\n"),
    (LOG, f"{AT} I fluvial.worker: fl.digits.updates.us[1] resumes at offset 98, version 12\n"),
    (LOG, f"{AT} W fluvial: waiting to resume fl.digits.updates.us[1], 3 s: no broker answers\n"),
    (
        LOG,
        f"{AT} E fluvial.worker: fl.digits.updates.us[0] stops.\nerror[FLV-3204]: the log ends at offset 9\n",
    ),
    (OBJECT, ""),
]


@pytest.mark.parametrize(("damage", "text"), NOTICED)
def test_a_message_about_the_damage_counts(damage: _Damage, text: str) -> None:
    before = f"{AT} I fluvial.worker: all is well\n"
    assert _naming_message(before + text + before, damage).startswith(AT)


@pytest.mark.parametrize(("damage", "text"), UNNOTICED)
def test_a_message_about_something_else_does_not(damage: _Damage, text: str) -> None:
    assert _naming_message(text, damage) == ""
