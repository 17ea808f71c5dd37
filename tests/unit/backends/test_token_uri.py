"""``pkcs11:`` URIs: what RFC 7512 allows is read and written the same, everything else is refused with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregation.errors import UsageProblem
from backends.key_providers.token_uri import URI_CHARACTERS_MAX, TokenUri, is_uri
from backends.settings import StackFile
from backends.tasks import TaskFile, write_task_file
from fluvial import cli
from fluvial.local.files import write_stack_file

TEXTS = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pkcs11:object=worker", TokenUri(object="worker")),
        ("PKCS11:object=worker", TokenUri(object="worker")),
        ("pkcs11:id=%01%ff", TokenUri(id=b"\x01\xff")),
        (
            "pkcs11:token=My%20HSM;object=eu%2fworker;type=private",
            TokenUri(token="My HSM", object="eu/worker"),
        ),
        (
            "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial=83d5;token=a;slot-id=7;object=b;id=%0A",
            TokenUri("a", "83d5", "SoftHSM project", "SoftHSM v2", 7, "b", b"\n"),
        ),
        ("pkcs11:object=a?module-path=/usr/lib/x.so", TokenUri(object="a", module=Path("/usr/lib/x.so"))),
    ],
)
def test_what_the_rfc_allows_is_read(text: str, expected: TokenUri) -> None:
    assert is_uri(text)
    assert TokenUri.parse(text) == expected
    assert TokenUri.parse(str(expected)) == expected


@given(token=TEXTS, label=TEXTS, key_id=st.binary(min_size=1, max_size=20), slot=st.integers(0, 2**62))
def test_what_is_written_is_read_again(token: str, label: str, key_id: bytes, slot: int) -> None:
    uri = TokenUri(token=token, object=label, id=key_id, slot=slot)
    assert TokenUri.parse(str(uri)) == uri


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("pkcs11:", "names no key"),
        ("pkcs11:token=a", "names no key"),
        ("pkcs11:object=", "object is empty"),
        ("pkcs11:object", "once, with a value"),
        ("pkcs11:object=a;object=b", "once, with a value"),
        ("pkcs11:object=a;", "'' is none of"),
        ("pkcs11:object=a;Token=b", "'Token' is none of"),
        ("pkcs11:object=a;type=cert", "type has to be private"),
        ("pkcs11:object=a%2", "%XX"),
        ("pkcs11:object=a b", "%XX"),
        ("pkcs11:object=µ", "%XX"),
        ("pkcs11:object=%ff", "not UTF-8"),
        ("pkcs11:object=%1b%5d52", "cannot be printed"),
        ("pkcs11:object=a;slot-id=x", "has to be a number"),
        ("pkcs11:object=a;slot-id=%d9%a3", "has to be a number"),
        ("pkcs11:object=a?module-name=x", "'module-name' is none of"),
        ("pkcs11:object=a?pin-value=secret", "pin-value may not stand in it"),
        ("pkcs11:object=a;pin-value=secret", "pin-value may not stand in it"),
        ("pkcs11:object=a?pin-source=/secret", "pin-source may not stand in it"),
        ("pkcs11:object=" + "a" * URI_CHARACTERS_MAX, "longer than"),
    ],
)
def test_everything_else_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        TokenUri.parse(text)
    assert caught.value.error_id == "FLV-2310"
    assert reason in caught.value.message
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("place", ["key.pem", "./pkcs11:object=a", " pkcs11:object=a", "pkcs11;object=a", ""])
def test_a_file_is_no_uri(place: str) -> None:
    assert not is_uri(place)


@pytest.mark.parametrize("begins", ["pkcs11:", "PKCS11:", "Pkcs11:", " pkcs11:", "pkcs11;", "./pkcs11:"])
def test_a_pin_that_stands_in_a_command_is_never_shown(
    home: Path, capsys: pytest.CaptureFixture[str], begins: str
) -> None:
    """However its URI is written: what is printed ends up in logs."""
    write_task_file(home, TaskFile(task="mine", genesis_sha256="ab", reference="digits", regions=("eu",)))
    write_stack_file(home, StackFile(store_kind="file", running=True, kafka_port=20001))
    key = f"{begins}token=a;object=b?pin-value=271828"
    assert cli.main(["--home", str(home), "worker", "--region", "eu", "--key", key]) == UsageProblem.exit_code
    said = capsys.readouterr()
    assert "PIN" in said.err and "271828" not in said.out + said.err
