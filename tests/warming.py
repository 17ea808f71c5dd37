"""What every process of a test run would else do again: compile the kernels, load Kafka's classes, start threads."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from fluvial.local import downloads
from fluvial.local.stack import LocalStack
from fluvial.terminal.output import Output
from schemas.objects import sha256_hex

ROOT: Final = Path(__file__).parents[1]
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_KERNELS: Final = "from tests.warming import call_kernels; call_kernels()"


def child_settings() -> dict[str, str]:
    """The environment of every process of a test run.

    One thread each for linear algebra: many processes share few cores. Java loads Kafka's classes from the archive
    where there is one, and does not optimize a broker that lives for minutes.
    """
    java = f"-XX:TieredStopAtLevel=1 -Xshare:auto -XX:SharedArchiveFile={_archive_path()}"
    given = os.environ.get("JDK_JAVA_OPTIONS", "")  # noqa: TID251
    return dict.fromkeys(_THREADS, "1") | {"JDK_JAVA_OPTIONS": given if java in given else f"{given} {java}"}


def compile_kernels() -> None:
    """Fill the kernels' cache on the disk, in a process of its own: this one may only count and share out tests."""
    subprocess.run([sys.executable, "-c", _KERNELS], cwd=ROOT, check=True)


def call_kernels() -> None:
    """Compile every kernel, or load it from its cache, as the audit does before it forks."""
    from aggregation.codecs import CODECS
    from fluvial.proof.audit.pool import _load_kernels

    _load_kernels(CODECS)


def archive_classes(folder: Path) -> None:
    """Let one broker write the archive of Kafka's classes, if this machine has none: it halves each later start."""
    archive = _archive_path()
    archive.parent.mkdir(parents=True, exist_ok=True)
    with archive.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if archive.is_file():
            return
        written = folder / "written.jsa"
        stack = LocalStack(folder / "home", store="file", reporter=Output(), secured=False)
        before = os.environ["JDK_JAVA_OPTIONS"]  # noqa: TID251
        os.environ["JDK_JAVA_OPTIONS"] = f"-XX:ArchiveClassesAtExit={written}"  # noqa: TID251
        try:
            stack.up()
        finally:
            os.environ["JDK_JAVA_OPTIONS"] = before  # noqa: TID251
            stack.down()
        if written.is_file():  # else this Java cannot, and starts as ever
            shutil.copy(written, archive.with_suffix(".new"))
            archive.with_suffix(".new").rename(archive)


def _archive_path() -> Path:
    """One for these jars and this Java; Java itself disregards an archive of another one."""
    java = shutil.which("java") or ""
    known = sha256_hex(os.path.realpath(java).encode())[:8]
    return downloads.kafka_jars_path().with_name(f"{downloads.kafka_jars_path().name}-classes-{known}.jsa")
