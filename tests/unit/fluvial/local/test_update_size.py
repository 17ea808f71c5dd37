"""A model whose updates are too large: the hint has every step, and following it is enough."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from aggregation.errors import UsageProblem
from aggregation.layout import Layout
from aggregation.policy import UPDATE_BYTES_LIMIT, policy_from_toml
from backends.settings import Settings, StoreSettings
from fluvial.local.policies import layered_policy
from fluvial.local.update_size import check_update_size

SETTINGS = Settings(
    home=Path("/nowhere"), bootstrap_servers="a:1", store=StoreSettings(kind="file", path=Path("/nowhere"))
)
ALREADY_RAISED = f'[updates]\ncodecs = ["int8"]\nbytes_max = {UPDATE_BYTES_LIMIT}\n'
POLICIES = ["", ALREADY_RAISED, '[updates]\ncodecs = ["float32"]\n', 'format = "fluvial/policy/v1"\n']


def model_of(parameters: int) -> Layout:
    return Layout.of([("0.weight", (parameters - 10,)), ("0.bias", (10,))])


def refused(layout: Layout, policy_text: str, settings: Settings = SETTINGS) -> UsageProblem:
    with pytest.raises(UsageProblem) as caught:
        check_update_size(layout, policy_from_toml(policy_text), settings)
    assert caught.value.error_id == "FLV-2404"
    return caught.value


@pytest.mark.parametrize("policy_text", POLICIES)
@pytest.mark.parametrize(
    "parameters", [9_000_000, 16_000_000, 20_000_000, 67_000_000, 98_000_000, 134_000_000]
)
def test_following_the_hint_to_the_letter_is_enough(parameters: int, policy_text: str) -> None:
    layout = model_of(parameters)
    hint = refused(layout, policy_text).hint
    written = "\n".join(re.findall(r"^    (.*)$", hint, re.MULTILINE))
    policy = layered_policy(explicit=written, task={}, defaults=policy_text) if written else None
    raised = re.search(r"`fluvial up --update-bytes-max (\d+)`", hint)
    settings = msgspec.structs.replace(SETTINGS, update_bytes_max=int(raised[1])) if raised else SETTINGS
    check_update_size(layout, policy or policy_from_toml(policy_text), settings)
    assert written or raised


@pytest.mark.parametrize("policy_text", POLICIES)
@pytest.mark.parametrize("parameters", [135_000_000, 10**9])
def test_what_no_codec_makes_small_enough_has_no_such_hint(parameters: int, policy_text: str) -> None:
    problem = refused(model_of(parameters), policy_text)
    assert "use a smaller model" in problem.hint
    assert "bytes_max" not in problem.hint


def test_it_says_how_many_parameters_the_most_is() -> None:
    problem = refused(model_of(98_000_000), ALREADY_RAISED)
    assert "67108864 bytes (64 MiB)" in problem.where
    assert "about 67 million parameters in int8, about 134 million parameters in int4" in problem.where


def test_what_fits_is_not_refused() -> None:
    check_update_size(model_of(8_000_000), policy_from_toml('[updates]\ncodecs = ["int8"]'), SETTINGS)


def test_a_bound_is_told_with_all_its_digits() -> None:
    with pytest.raises(UsageProblem, match="between 1 and 67108864"):
        policy_from_toml("[updates]\nbytes_max = 134217728")
    policy_from_toml("[updates]\nbytes_max = 67108864")
