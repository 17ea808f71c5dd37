"""What is written out for a verdict is what the library writes for it, byte for byte, in both versions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation.fold.events import Verdict
from aggregation.fold.rules import CANONICAL_RULES, FIRST_RULES
from aggregation.reasons import NOTHING, REASONS, VALUE_CHARACTERS_MAX, Because, said
from schemas import avro
from schemas.verdicts import DETAIL_MAX, decode_verdict, encode_verdict

if TYPE_CHECKING:
    from aggregation.fold.rules import RecordRules

LONG_MAX = 2**63 - 1
EDGES = [0, -1, 1, 63, -64, 64, 8191, -8192, 8192, 2**31, LONG_MAX, -LONG_MAX - 1]
longs = st.sampled_from(EDGES) | st.integers(-LONG_MAX - 1, LONG_MAX)
floats = st.floats(width=64)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=VALUE_CHARACTERS_MAX + 3)
OF_KIND: dict[type, st.SearchStrategy[Any]] = {int: longs, float: floats, str: texts}


@st.composite
def reasons(draw: st.DrawFn) -> Because:
    reason = draw(st.sampled_from(sorted(REASONS.values(), key=lambda one: one.code)))
    return Because(reason, tuple(draw(OF_KIND[kind]) for kind in reason.fields.values()), draw(texts))


@st.composite
def verdicts(draw: st.DrawFn, why: st.SearchStrategy[Because]) -> Verdict:
    return Verdict(
        draw(longs), draw(texts), draw(why), draw(texts), draw(texts), *draw(st.tuples(*[longs] * 3)),
        *draw(st.tuples(*[floats] * 4)),
    )  # fmt: skip


def by_the_library(verdict: Verdict, rules: RecordRules) -> bytes:
    names = (
        *("offset", "outcome", "device_id", "update_id", "base_version", "staleness", "weight"),
        *("clip", "norm", "norm_deviations", "cosine"),
    )
    record: dict[str, Any] = {name: getattr(verdict, name) for name in names}
    why = verdict.because
    if rules.verdicts == 1:
        return avro.encode_as("Verdict", 1, record | {"detail": why.text[:DETAIL_MAX]})
    cut = [one[:VALUE_CHARACTERS_MAX] if isinstance(one, str) else one for one in why.values]
    return avro.encode_as(
        "Verdict", 2, record | {"reason": why.reason.code, "values": cut, "forged": why.forged}
    )


@settings(max_examples=400, deadline=None)
@given(verdicts(reasons()))
def test_a_reason_and_its_values(verdict: Verdict) -> None:
    assert encode_verdict(verdict, CANONICAL_RULES) == by_the_library(verdict, CANONICAL_RULES)


@settings(max_examples=400, deadline=None)
@given(verdicts(st.text(st.characters(exclude_categories=["Cs"]), max_size=DETAIL_MAX + 3).map(said)))
def test_words(verdict: Verdict) -> None:
    assert encode_verdict(verdict, FIRST_RULES) == by_the_library(verdict, FIRST_RULES)


@pytest.mark.parametrize("rules", [FIRST_RULES, CANONICAL_RULES])
def test_what_is_written_is_read_back(rules: RecordRules) -> None:
    verdict = Verdict(7, "accepted", NOTHING, "d-1", "u-1", 3, 2, 65536, 1.0, 0.5, -math.inf, -0.0)
    assert decode_verdict(encode_verdict(verdict, rules)) == verdict


@pytest.mark.parametrize("rules", [FIRST_RULES, CANONICAL_RULES])
@pytest.mark.parametrize("number", [LONG_MAX + 1, -LONG_MAX - 2])
def test_a_number_of_more_than_64_bits_is_an_overflow(rules: RecordRules, number: int) -> None:
    with pytest.raises(OverflowError):
        encode_verdict(Verdict(number, "accepted"), rules)


def test_words_that_were_read_from_a_verdict_stand_in_no_newer_one() -> None:
    with pytest.raises(ValueError, match="stands in no verdict"):
        encode_verdict(Verdict(0, "accepted", said("words")), CANONICAL_RULES)
