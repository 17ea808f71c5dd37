"""Text to learn to write from: the pages of help that every Python has on board. No torch here.

The pages are chapters of the language's reference, written by many hands on matters far apart (PSF licence). They are
not quite the same in each minor version of Python.
"""

from __future__ import annotations

import string
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aggregation.errors import EnvironmentProblem
from learning.datasets import Dataset

LETTERS: Final = string.printable[:95] + "\n"
"""The 96 characters that are told apart: printable ASCII and the end of a line. Others are spaces."""
LENGTH: Final = 48
"""Letters in an example."""
PAGE_EXAMPLES_MIN: Final = 40
"""A page with fewer examples is no device of its own, and left out."""
_TEST_EVERY: Final = 5
_CODES: Final = {letter: code for code, letter in enumerate(LETTERS)}
_SPACE: Final = _CODES[" "]


@lru_cache(maxsize=1)
def help_pages() -> Dataset:
    """Python's help, a device a page: x int64[n, 48] and y int64[n, 48], the codes of letters and of those that follow.

    A paragraph that stands on several pages belongs to the shortest of them. Of every page, each fifth example is for
    testing. Raises EnvironmentProblem FLV-2206 where Python came without its help.
    """
    parts, held_out = {}, []
    for name, text in _pages().items():
        x, y = examples_of(text)
        if len(x) < PAGE_EXAMPLES_MIN:
            continue
        test = np.arange(len(x)) % _TEST_EVERY == _TEST_EVERY - 1
        parts[name] = (x[~test], y[~test])
        held_out.append((x[test], y[test]))
    test_x, test_y = (np.concatenate(side) for side in zip(*held_out, strict=True))
    return Dataset(parts=parts, test=(test_x, test_y))


def examples_of(text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(x, y) int64[n, 48]: a text cut into pieces, and the same pieces one letter further on."""
    codes = np.array([_CODES.get(letter, _SPACE) for letter in text], dtype=np.int64)
    count = max(0, (len(codes) - 1) // LENGTH)
    ends = count * LENGTH
    return codes[:ends].reshape(count, LENGTH), codes[1 : ends + 1].reshape(count, LENGTH)


def _pages() -> dict[str, str]:
    """Text by page, the pages in order of their names."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise EnvironmentProblem(
            "FLV-2206",
            "the help_pages data set is not on this machine: this Python came without pydoc_data, its help",
            hint="install the whole standard library: `apt-get install python3`, or a Python of python.org",
        ) from error
    seen: set[str] = set()
    own: dict[str, str] = {}
    for name, page in sorted(topics.items(), key=lambda item: (len(item[1]), item[0])):
        paragraphs = [one for one in page.split("\n\n") if one not in seen]
        seen.update(paragraphs)
        own[name] = "\n\n".join(paragraphs)
    return dict(sorted(own.items()))
