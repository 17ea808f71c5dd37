"""Several threads may be the first to read documents of one kind: the console's and a worker's often are."""

from __future__ import annotations

import subprocess
import sys

THREADS_ROUNDS = 300
FIRST_READERS = f"""
import sys, threading
import msgspec

sys.setswitchinterval(1e-6)
data = {{"list": [{{"one": 1}}] * 3, "dict": {{"a": {{"inner": {{"one": 2}}}}}}, "numbers": {{"a": 1}}}}


def read(kind, barrier, found):
    barrier.wait()
    found.append(msgspec.convert(data, kind))


for _ in range({THREADS_ROUNDS}):
    class Inner(msgspec.Struct):
        one: int

    class Middle(msgspec.Struct):
        inner: Inner

    class Outer(msgspec.Struct):
        list: list[Inner]
        dict: dict[str, Middle]
        numbers: dict[str, int]

    barrier, found = threading.Barrier(4), []
    threads = [threading.Thread(target=read, args=(Outer, barrier, found)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(msgspec.to_builtins(one) == data for one in found)
"""


def test_threads_that_are_first_to_read_a_kind_read_it_right() -> None:
    # What goes wrong here ends the whole process, without an exception: so it is one of its own.
    ended = subprocess.run(
        [sys.executable, "-c", FIRST_READERS], check=False, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
