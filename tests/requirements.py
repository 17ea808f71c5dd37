"""Programs that some tests need beside the locked packages: without one they are skipped by name, and fail in CI.

``@pytest.mark.needs("promtool")`` names them. In CI (the variable CI is set) a missing one is a failure: there a skip
would hide that an installation failed.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from backends.settings import Settings

APT: Final = {
    "chromium": "chromium",
    "fashion-mnist": "dataset-fashion-mnist",
    "go": "golang-go",
    "jq": "jq",
    "kcat": "kcat",
    "node": "nodejs",
    "pkcs11-tool": "opensc",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "softhsm2-util": "softhsm2",
}
"""What a test may need, and the package of Debian and Ubuntu that has it."""
GO: Final = {"versitygw": "github.com/versity/versitygw/cmd/versitygw@latest"}
"""What the slow lane may need besides, and how Go builds it."""

_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """A browser for the console's tests."""
    return next((path for name in _BROWSERS if (path := shutil.which(name))), None)


def is_there(name: str) -> bool:
    """Whether this machine has one of ``APT``."""
    if name == "chromium":
        return find_browser() is not None
    if name == "fashion-mnist":
        from learning.datasets import FASHION_FOLDER  # with torch behind it

        return FASHION_FOLDER.is_dir()
    return shutil.which(name) is not None


def require(*names: str) -> None:
    """Skip the test that calls this, or fail it in CI, if this machine lacks one of ``names``."""
    missing = [name for name in names if not is_there(name)]
    for name in missing:
        if name in GO:
            lack(f"not installed: {name} (go install {GO[name]})")
    if missing:
        packages = " ".join(APT[name] for name in missing)
        lack(f"not installed: {', '.join(missing)} (sudo apt install --no-install-recommends {packages})")


def require_minio(settings: Settings) -> None:
    """As ``require``, for a stack that has a folder where MinIO should be: there was no Go to build it."""
    if settings.store.kind != "minio":
        lack("there is no MinIO here: it is built with Go 1.24 or later (sudo apt install golang-go)")


def lack(what: str) -> None:
    """Skip the test, or fail it in CI, for what this machine lacks."""
    if os.environ.get("CI"):  # noqa: TID251
        pytest.fail(what)
    pytest.skip(what)
