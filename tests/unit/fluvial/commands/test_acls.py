"""``fluvial task acls``: what is printed can be applied as it is."""

from __future__ import annotations

import json
import shlex

import pytest

from fluvial import cli
from schemas.access import ROLES, access_of


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["task", "acls", "digits", "--regions", "eu,us", *arguments]) == 0
    return capsys.readouterr().out


def test_a_line_of_kafkas_tool_for_each_permission(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [shlex.split(line) for line in printed(capsys, "--bootstrap-server", "kafka-1:9093").splitlines()]
    assert len(lines) == len(access_of("digits", {"eu": 1, "us": 1}))
    worker = [line for line in lines if "User:CN=worker,OU=worker,O=us" in line]
    assert {line[line.index("--topic") + 1] for line in worker if "--topic" in line} == {
        "fl.digits.updates.us",
        "fl.digits.verdicts.us",
        "fl.digits.aggregates.us",
        "fl.digits.metrics",
    }
    assert all(line[:3] == ["kafka-acls.sh", "--bootstrap-server", "kafka-1:9093"] for line in lines)
    prefixed = [line for line in lines if "prefixed" in line]
    assert {line[line.index("--group") + 1] for line in prefixed} == {
        "fluvial-digits-merger-",
        "fluvial-digits-evaluator-",
    }


def test_principals_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "--principal", "worker=User:w-{region}", "--principal", "reader=User:auditor")
    assert {"User:w-eu", "User:w-us", "User:auditor"} <= set(out.split())
    assert "OU=worker" not in out


@pytest.mark.parametrize("form", ["kafka", "strimzi"])
def test_a_principal_may_name_the_task(capsys: pytest.CaptureFixture[str], form: str) -> None:
    out = printed(capsys, "--principal", "worker=User:w-{task}-{region}", "--format", form)
    assert "w-digits-eu" in out
    assert "{task}" not in out


def test_a_user_of_strimzis_for_each_role_and_region(capsys: pytest.CaptureFixture[str]) -> None:
    users = [json.loads(part) for part in printed(capsys, "--format", "strimzi").split("---\n") if part]
    assert {user["metadata"]["name"] for user in users} == {
        *(f"fluvial-digits-{role}-{region}" for role in ("device", "worker") for region in ("eu", "us")),
        *(f"fluvial-digits-{role}" for role in ("merger", "evaluator", "operator", "reader")),
    }
    by_name = {user["metadata"]["name"]: user["spec"]["authorization"]["acls"] for user in users}
    assert {
        "resource": {"type": "group", "name": "fluvial-digits-merger-", "patternType": "prefix"},
        "operations": ["Read"],
        "host": "*",
    } in by_name["fluvial-digits-merger"]


def test_a_policy_of_s3_for_each_role(capsys: pytest.CaptureFixture[str]) -> None:
    policies = json.loads(printed(capsys, "--format", "minio", "--bucket", "models"))
    assert policies.keys() == {f"fluvial-digits-{role}" for role in ROLES if role != "guardian"}, (
        "a task without guides has no guardians"
    )
    assert policies["fluvial-digits-device"]["Statement"][0] == {
        "Effect": "Allow",
        "Action": ["s3:GetObject"],
        "Resource": ["arn:aws:s3:::models/digits/objects/*", "arn:aws:s3:::models/digits/versions/*"],
    }
    guided = json.loads(printed(capsys, "--format", "minio", "--guided", "--json"))
    assert guided["task"] == "digits" and "fluvial-digits-guardian" in guided["policies"]


@pytest.mark.parametrize("principal", ["worker", "worker=alice", "king=User:x"])
def test_a_principal_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], principal: str) -> None:
    assert cli.main(["task", "acls", "digits", "--regions", "eu", "--principal", principal]) == 4
    assert "FLV-6001" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["", "ab", "Models", "models/eu", "mo*els", "10.0.0.1", 'a"b', "mod\nels", "x" * 64]
)
def test_what_is_no_buckets_name_gets_into_no_policy(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["task", "acls", "digits", "--regions", "eu", "--format", "minio", "--bucket", name]
    assert cli.main(command) == 4
    assert "--bucket" in capsys.readouterr().err
