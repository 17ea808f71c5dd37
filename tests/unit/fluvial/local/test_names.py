"""How services are told where their files are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fluvial.local.names import java_classpath, java_property, seen_from

ODD = [
    "plain",
    "Zoë",
    "a,b",
    " a b ",
    "q'\"",
    "${x} $HOME",
    "%p",
    "a\\b",
    "日本",
    "😀",
    "a:b",
    "{1...3}",
    "[a]*",
    "#!=",
]


def as_java_reads(text: str) -> str:
    """``java.util.Properties.load``, of one value, by its documentation."""
    assert text == text.lstrip(" \t\f")
    units = b""
    for part in re.findall(r"\\u[0-9a-f]{4}|\\.|[^\\]", text):
        unit = int(f"0x{part[2:]}", 0) if part.startswith("\\u") else ord(part[-1])
        units += unit.to_bytes(2, "big")
    return units.decode("utf-16-be")


@pytest.mark.parametrize("value", ODD)
def test_a_property_is_latin_1_and_java_reads_it_back(value: str) -> None:
    written = java_property(value)
    assert written.isascii()
    assert as_java_reads(written) == value


@pytest.mark.parametrize("name", ODD)
def test_what_lies_in_the_home_has_a_plain_name(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    assert seen_from(home, home / "data" / "kafka") == "data/kafka"


def test_another_folder_keeps_its_name_unless_it_would_be_split(tmp_path: Path) -> None:
    assert seen_from(tmp_path / "home", tmp_path / "disk") == str(tmp_path / "disk")
    assert seen_from(tmp_path / "a,b" / "home", tmp_path / "a,b" / "disk") == "../disk"


def test_a_class_path_has_no_colon_of_a_folder(tmp_path: Path) -> None:
    assert java_classpath(tmp_path / "jars", tmp_path) == f"{tmp_path}/jars/*"
    jars = tmp_path / "a:b"
    jars.mkdir()
    (jars / "one.jar").touch()
    for _ in range(2):
        assert java_classpath(jars, tmp_path) == "run/jars/*"
    assert (tmp_path / "run" / "jars" / "one.jar").is_file()
