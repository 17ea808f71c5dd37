"""``fluvial/code/v1``: one form for the same files, and nothing else is read."""

from __future__ import annotations

import io
import stat
import warnings
import zipfile
from collections.abc import Callable

import pytest

from aggregation.errors import IntegrityProblem
from schemas.objects import sha256_hex
from schemas.program_archive import BYTES_MAX, FILES_MAX, decode_program, encode_program, is_name

FILES = {"mine.py": b"import nets\n", "nets/__init__.py": b"", "nets/größe.py": "WEITE = 'ë'\n".encode()}


def zipped(change: Callable[[zipfile.ZipFile], None], comment: bytes = b"fluvial/code/v1") -> bytes:
    target = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(target, "w") as archive:
        archive.comment = comment
        change(archive)
    return target.getvalue()


def entry(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.create_system, made.external_attr = 3, mode << 16
    return made


def test_what_goes_in_comes_out() -> None:
    assert decode_program(encode_program(FILES)) == FILES


def test_the_same_files_have_the_same_bytes_for_ever() -> None:
    """A released format: other bytes would be another task."""
    data = encode_program(dict(reversed(FILES.items())))
    assert data == encode_program(FILES)
    assert sha256_hex(data) == "aa97f83b6e04b28520e9afbfcd0157c1eb8212a191096f3d06cbca61b9f927b0"


def test_anybody_can_open_it() -> None:
    with zipfile.ZipFile(io.BytesIO(encode_program(FILES))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(FILES)
        assert archive.comment == b"fluvial/code/v1"


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../up.py", "a/../b.py", "a//b.py", "./a.py", "a\\b.py", "C:\\a.py", "a\nb.py", "a.py/",
     "x" * 256],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_is_neither_written_nor_read(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(ValueError, match="name"):
        encode_program({name: b""})
    with pytest.raises(IntegrityProblem) as caught:
        decode_program(zipped(lambda archive: archive.writestr(entry(name), b"")))
    assert caught.value.error_id == "FLV-2231"


@pytest.mark.parametrize(
    "files",
    [
        {},
        {f"f{number}.py": b"" for number in range(FILES_MAX + 1)},
        {"a.py": bytes(BYTES_MAX + 1)},
        {"a": b"", "a/b.py": b""},
    ],
)
def test_too_many_too_large_and_contradicting_files_are_refused(files: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match=r"files|bytes|folder"):
        encode_program(files)


def test_the_largest_that_is_allowed_is_read() -> None:
    names = [f"{'ë' * 120}/{'x' * 100}{number}.py" for number in range(FILES_MAX)]
    files = dict.fromkeys(names, bytes(BYTES_MAX // FILES_MAX))
    assert decode_program(encode_program(files)) == files


GOOD = encode_program({"a.py": b"A = 1\n", "b.py": b""})


def empty(archive: zipfile.ZipFile, *names: str) -> None:
    for name in names:
        archive.writestr(entry(name), b"")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no zip at all",
        GOOD[:-1],
        GOOD + b"\0",
        b"\0" + GOOD,
        GOOD.replace(b"A = 1", b"A = 2"),  # its checksum is of other bytes
        bytes(BYTES_MAX + 2_000_000),
        zipped(lambda archive: archive.writestr(entry("a.py"), b""), comment=b"fluvial/code/v2"),
        zipped(lambda archive: archive.writestr(entry("a.py"), b"x" * 99, zipfile.ZIP_DEFLATED)),
        zipped(lambda archive: archive.writestr(entry("a.py", stat.S_IFLNK | 0o777), b"/etc/passwd")),
        zipped(lambda archive: archive.writestr(zipfile.ZipInfo("a.py", (2020, 1, 1, 0, 0, 0)), b"")),
        zipped(lambda archive: empty(archive, "b.py", "a.py")),
        zipped(lambda archive: empty(archive, "a.py", "a.py")),
        zipped(lambda archive: archive.writestr(entry("a.py"), bytes(BYTES_MAX + 1), zipfile.ZIP_DEFLATED)),
    ],
)  # fmt: skip
def test_other_bytes_are_no_archive(data: bytes) -> None:
    with pytest.raises(IntegrityProblem) as caught:
        decode_program(data)
    assert caught.value.error_id == "FLV-2231"
