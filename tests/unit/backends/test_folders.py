"""Places for what may be lost."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from aggregation.errors import EnvironmentProblem, UsageProblem
from backends import caches, environment, folders


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_temporary_folder_is_gone_at_the_end(temporary: Path) -> None:
    with folders.temporary_folder("x-") as folder:
        (folder / "a").touch()
        assert folder.parent == temporary
    assert not folder.exists()


def test_where_none_can_be_made_it_is_said(temporary: Path) -> None:
    temporary.rmdir()
    with pytest.raises(EnvironmentProblem) as caught, folders.temporary_folder("x-"):
        pass
    assert (caught.value.error_id, caught.value.where) == ("FLV-1019", str(temporary))


def test_a_user_without_a_home_has_a_private_folder(temporary: Path) -> None:
    folder = folders.of_this_user()
    assert (folder.parent, folder.stat().st_mode & 0o777) == (temporary, 0o700)
    assert folders.of_this_user() == folder


@pytest.mark.parametrize("kind", ["others may write", "a link", "a file"])
def test_a_folder_that_somebody_else_may_have_prepared_is_refused(temporary: Path, kind: str) -> None:
    """Compiled code is loaded from it."""
    name = temporary / f"fluvial-{os.geteuid()}"
    if kind == "others may write":
        name.mkdir()
        name.chmod(0o777)
    elif kind == "a link":
        (temporary / "elsewhere").mkdir(mode=0o700)
        name.symlink_to(temporary / "elsewhere")
    else:
        name.touch()
    with pytest.raises(EnvironmentProblem) as caught:
        folders.of_this_user()
    assert caught.value.error_id == "FLV-1019"


def test_a_home_directory_that_nobody_has_is_refused_by_name() -> None:
    with pytest.raises(UsageProblem) as caught:
        environment.resolve_home(Path("~no-such-user/home"))
    assert caught.value.error_id == "FLV-1021"


def test_compiled_code_is_kept_beside_the_source_else_with_the_user_else_nowhere(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    beside, cache = temporary / "source" / "__pycache__", temporary / "cache"
    monkeypatch.setenv("FLUVIAL_CACHE", str(cache))
    assert environment.keep_compiled_code(beside) == beside
    assert "NUMBA_CACHE_DIR" not in os.environ  # noqa: TID251

    closed = Path("/proc/nothing/here")
    assert environment.keep_compiled_code(closed) == cache / "compiled"
    assert os.environ["NUMBA_CACHE_DIR"] == str(cache / "compiled")  # noqa: TID251

    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("FLUVIAL_CACHE", str(closed))
    assert environment.keep_compiled_code(closed) == folders.of_this_user() / "compiled"

    monkeypatch.delenv("NUMBA_CACHE_DIR")
    folders.of_this_user().chmod(0o777)
    assert environment.keep_compiled_code(closed) is None
    assert "NUMBA_CACHE_DIR" not in os.environ  # noqa: TID251


def test_a_place_that_the_user_has_named_is_kept(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(temporary / "his"))
    assert environment.keep_compiled_code(temporary / "source") == temporary / "his"


def test_matplotlib_has_a_place_where_the_user_has_no_home(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ: dict[str, str] = {}
    places = (lambda: Path("/proc/nothing"), lambda: temporary)
    monkeypatch.setenv("HOME", str(temporary))
    caches.keep_matplotlib(environ, places)
    assert environ == {}
    monkeypatch.setenv("HOME", "/proc/nothing")
    caches.keep_matplotlib(environ, places)
    assert environ == {"MPLCONFIGDIR": str(temporary / "matplotlib")}
    environ["MPLCONFIGDIR"] = "/his/own"
    caches.keep_matplotlib(environ, places)
    assert environ == {"MPLCONFIGDIR": "/his/own"}
