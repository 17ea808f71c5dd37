"""Java, Maven and Go on this machine: where they are, which version, and how to get them."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Final

from aggregation.errors import EnvironmentProblem
from backends.environment import java_home

JAVA_VERSION_MIN: Final = (17,)
GO_VERSION_MIN: Final = (1, 24)
_VERSION_TIMEOUT_S: Final = 60.0

JAVA_HINT: Final = (
    "install it with `sudo apt install openjdk-17-jre-headless` (Debian, Ubuntu), or set JAVA_HOME"
)
MAVEN_HINT: Final = "install it with `sudo apt install maven` (Debian, Ubuntu)"
GO_HINT: Final = (
    "install it with `sudo apt install golang-go` if that is 1.24 or later, or use `fluvial up --store file`"
)


@dataclass(frozen=True)
class Tool:
    """A program that was found, and its version."""

    path: str
    version: tuple[int, ...]

    @property
    def version_text(self) -> str:
        """The version with dots."""
        return ".".join(str(part) for part in self.version)


def find_java() -> Tool | None:
    """The Java that would run the broker: JAVA_HOME's, else the one on the path."""
    home = java_home()
    candidate = home / "bin" / "java" if home is not None else None
    path = str(candidate) if candidate is not None and candidate.is_file() else shutil.which("java")
    return _tool(path, "-version", r'version "(\d+(?:\.\d+)*)')


def find_maven() -> Tool | None:
    """Maven on the path."""
    return _tool(shutil.which("mvn"), "--version", r"Apache Maven (\d+(?:\.\d+)*)")


def find_go() -> Tool | None:
    """Go on the path."""
    return _tool(shutil.which("go"), "version", r"go(\d+(?:\.\d+)*)")


def require_java() -> Tool:
    """Java 17 or later.

    Raises EnvironmentProblem: FLV-1004.
    """
    java = find_java()
    if java is None:
        raise EnvironmentProblem(
            "FLV-1004", "Kafka needs Java 17 or later, and there is no `java`", hint=JAVA_HINT
        )
    if java.version < JAVA_VERSION_MIN:
        message = f"Kafka needs Java 17 or later, and {java.path} is {java.version_text}"
        raise EnvironmentProblem("FLV-1004", message, hint=JAVA_HINT)
    return java


def require_maven() -> Tool:
    """Maven, which fetches Kafka once.

    Raises EnvironmentProblem: FLV-1005.
    """
    maven = find_maven()
    if maven is None:
        message = "Kafka's jars are fetched once with Maven, and there is no working `mvn`"
        raise EnvironmentProblem("FLV-1005", message, hint=MAVEN_HINT)
    return maven


def go_problem() -> str:
    """Why Go cannot build MinIO, in a few words; empty when it can."""
    go = find_go()
    if go is None:
        return "there is no `go`"
    if go.version < GO_VERSION_MIN:
        return f"{go.path} is {go.version_text}, older than 1.24"
    return ""


def _tool(path: str | None, argument: str, pattern: str) -> Tool | None:
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, argument],
            capture_output=True,
            text=True,
            timeout=_VERSION_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(pattern, done.stdout + done.stderr)
    return Tool(path, tuple(int(part) for part in match.group(1).split("."))) if match else None
