"""Kernels are compiled whether or not the result can be kept."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core.caching import FunctionCache

from aggregation.codecs.compiled import compiled


def make(*, cached: bool) -> Any:
    @compiled(cached=cached)
    def add(a: int, b: int) -> int:
        return a + b

    return add


@pytest.mark.parametrize("method", ["_load_overload", "_save_overload"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_cache_that_fails_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, number: int
) -> None:
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))
    asked = []

    def fails(*_: object) -> None:
        asked.append(method)
        raise OSError(number, "no")

    monkeypatch.setattr(FunctionCache, method, fails)
    assert make(cached=True)(np.int64(1), np.int64(2)) == 3
    assert asked


def test_no_place_for_a_cache_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FunctionCache._impl_class, "_locator_classes", [])
    assert make(cached=True)(np.int64(1), np.int64(2)) == 3


def test_it_is_kept_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))
    for expected_misses in (1, 0):
        add = make(cached=True)
        add(np.int64(1), np.int64(2))
        assert sum(add.stats.cache_misses.values()) == expected_misses
    assert sum(make(cached=False).stats.cache_hits.values()) == 0
