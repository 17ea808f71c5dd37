"""Examples as numpy arrays, and two data sets of pictures that ship: ``digits`` and ``fashion``. No torch here.

Nothing is fetched from the network: digits lie in the scikit-learn wheel, Fashion-MNIST in a Debian package.
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aggregation.errors import EnvironmentProblem, UsageProblem
from learning.package_files import text_of
from learning.sources import MALFORMED, is_source, pair_of, parts_of

Array = NDArray[Any]
Source = Any
"""What ``Examples.of`` takes."""
FASHION_FOLDER: Final = Path("/usr/share/datasets/fashion-mnist")
_PAIR: Final = 2
_TEST_EVERY: Final = 5  # every fifth example of a class is held out: 1,438 digits to train on, 359 to test on


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Inputs and targets of equal length n.

    x: float32[n, ...] (or int64[n, ...] for token ids); y: int64[n] class labels, or float32[n, ...] targets.
    Floating-point and 8-bit inputs become float32; wider integer inputs stay integers (int64).
    Raises UsageProblem FLV-2205 if lengths differ, nothing is there, or a value is NaN or infinite.
    """

    x: Array
    y: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", _numeric(self.x, "x", small_integers_are_floats=True))
        object.__setattr__(self, "y", _numeric(self.y, "y", small_integers_are_floats=False))
        if len(self.x) != len(self.y):
            raise _malformed(
                f"x has {len(self.x)} examples and y has {len(self.y)}; they must be equally many"
            )
        if len(self.x) == 0:
            raise _malformed("x and y are empty; at least one example is needed")

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def of(cls, source: Source, *, x: str | Sequence[str] = (), y: str = "") -> Examples:
        """The examples of a pair of arrays, a data set or loader of torch, columns, a table, a file or a folder.

        x, y: the columns that are meant, where the source has names; without, y is the one called label, target or y,
        and x are the others. In the source's own order, also of a loader that shuffles, and all at once: what draws
        (augmentation) is drawn once. Raises UsageProblem FLV-2205; see ``learning.sources``.
        """
        return cls(*pair_of(source, x, y))

    def subset(self, indices: ArrayLike) -> Examples:
        """The examples at ``indices`` (int64[k]), in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Examples(self.x[chosen], self.y[chosen])

    def copy(self) -> Examples:
        """The same examples in arrays of their own, which whoever gets them may change."""
        examples = object.__new__(Examples)  # these are checked already
        object.__setattr__(examples, "x", self.x.copy())
        object.__setattr__(examples, "y", self.y.copy())
        return examples

    @property
    def labels(self) -> NDArray[np.int64]:
        """The targets y as int64[n]. Raises UsageProblem FLV-2205 if the targets are not class labels."""
        if self.y.dtype != np.int64 or self.y.ndim != 1:
            raise _malformed(
                f"class labels must be integers of shape [n]; y is {self.y.dtype}{list(self.y.shape)}"
            )
        return self.y


class Dataset:
    """Training examples, which the devices have, and held-out test examples, for the evaluator.

    Each side is a pair (x, y) of arrays, an ``Examples``, or what ``Examples.of`` takes. ``train`` is split among the
    devices. Instead of it, ``parts`` says who has what: one part a device, by its name (a hospital, a speaker, a
    store), which becomes the device's id: lower-case, with ``-`` for what an id cannot hold; or a folder that has one
    folder or file a device. Raises UsageProblem FLV-2205 if malformed.
    """

    __slots__ = ("_train", "parts", "test")

    parts: Mapping[str, Examples]
    """The natural parts by device id, in the order given; empty where ``train`` was given."""
    test: Examples

    def __init__(
        self,
        train: Source | None = None,
        test: Source | None = None,
        *,
        parts: Mapping[Any, Source] | str | Path | None = None,
    ) -> None:
        if (train is None) == (parts is None):
            raise _malformed(
                "give either train, to be split among the devices, or parts, one for each device"
            )
        if test is None:
            raise _malformed("test is missing: held-out examples, for the evaluator")
        self.test = _examples(test, "test")
        self.parts = {} if parts is None else _parts(parts)
        self._train = None if train is None else _examples(train, "train")
        for name, side in {**self.parts, **({"training": self._train} if self._train else {})}.items():
            if side.x.shape[1:] != self.test.x.shape[1:]:
                raise _malformed(
                    f"one {name} input has shape {list(side.x.shape[1:])}, "
                    f"one test input {list(self.test.x.shape[1:])}; they must be equal"
                )

    @property
    def train(self) -> Examples:
        """All training examples: with ``parts``, one after the other."""
        if self._train is None:
            sides = self.parts.values()
            self._train = Examples(
                np.concatenate([side.x for side in sides]), np.concatenate([side.y for side in sides])
            )
        return self._train


def _parts(parts: object) -> dict[str, Examples]:
    from schemas.certificates import NAME_PATTERN

    if isinstance(parts, str | Path):
        parts = parts_of(Path(parts))
    if not isinstance(parts, Mapping) or not parts:
        raise _malformed('parts must be a dict such as {"hospital-a": (x, y)}, with one part or more')
    named: dict[str, Examples] = {}
    for name, side in parts.items():
        device_id = re.sub(r"[^a-z0-9._-]+", "-", str(name).lower()).strip("._-")
        if not NAME_PATTERN.fullmatch(device_id):
            raise _malformed(
                f"a part is called {name!r}, which gives no device id of 1 to 64 of a-z 0-9 . _ -"
            )
        if device_id in named:
            raise _malformed(f"two parts give the device id {device_id!r}, the second is {name!r}")
        named[device_id] = _examples(side, f"part {name!r}")
    shapes = {(side.y.shape[1:], str(side.y.dtype)) for side in named.values()}
    if len(shapes) > 1 or len({str(side.x.dtype) for side in named.values()}) > 1:
        raise _malformed("the parts have targets or inputs of different types or shapes; they must be alike")
    return named


def _examples(side: Any, name: str) -> Examples:
    if isinstance(side, Examples):
        return side
    pair = isinstance(side, tuple | list) and len(side) == _PAIR
    if not pair and not is_source(side):
        raise _malformed(f"{name} must be a pair (x, y) of arrays, got {type(side).__name__}")
    try:
        return Examples(side[0], side[1]) if pair else Examples.of(side)
    except UsageProblem as problem:
        raise _malformed(f"{name}: {problem.message.removeprefix(MALFORMED)}") from problem


def _numeric(values: ArrayLike, name: str, *, small_integers_are_floats: bool) -> Array:
    array = np.asarray(values)
    if array.ndim == 0 or array.dtype.kind not in "fiub":
        raise _malformed(
            f"{name} must be an array of numbers, got {array.dtype} of shape {list(array.shape)}"
        )
    if array.dtype.kind == "f":
        broken = int(np.count_nonzero(~np.isfinite(array)))
        if broken:
            raise _malformed(
                f"{name} has {broken} values that are NaN or infinite; every value must be finite"
            )
        return np.ascontiguousarray(array, dtype=np.float32)
    if small_integers_are_floats and array.dtype.itemsize == 1:
        return np.ascontiguousarray(array, dtype=np.float32)
    return np.ascontiguousarray(array, dtype=np.int64)


def _malformed(message: str) -> UsageProblem:
    return UsageProblem(
        "FLV-2205",
        f"{MALFORMED}{message}",
        hint="return learning.Dataset(train=(x, y), test=(x, y)) from data(), with numpy arrays",
    )


@lru_cache(maxsize=1)
def digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits: x float32[n, 64] in [0, 1], y int64[n] in 0 … 9.

    The split is fixed and stratified: of each class, in the file's order, every fifth example is for testing.
    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository.
    """
    table = np.loadtxt(
        text_of("sklearn", "datasets/data/digits.csv.gz", "digits").splitlines(), delimiter=","
    )  # 64 grey values of 0 … 16, then the label
    labels = table[:, -1].astype(np.int64)
    test = held_out(labels)
    x = (table[:, :-1] / 16.0).astype(np.float32)
    return Dataset(train=(x[~test], labels[~test]), test=(x[test], labels[test]))


def held_out(groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool[n]: of each group int64[n], in order, every fifth."""
    chosen = np.zeros(len(groups), dtype=bool)
    for group in np.unique(groups):
        chosen[np.flatnonzero(groups == group)[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
    return chosen


@lru_cache(maxsize=2)
def fashion(
    train_examples: int = 60_000, test_examples: int = 10_000, folder: Path = FASHION_FOLDER
) -> Dataset:
    """Fashion-MNIST: x float32[n, 1, 28, 28] in [0, 1], y int64[n] in 0 … 9 (Xiao, Rasul, Vollgraf 2017).

    Fewer examples than there are means evenly spaced ones, always the same. Files: Debian's
    dataset-fashion-mnist.
    Raises EnvironmentProblem FLV-2206 if the files are absent, FLV-2214 if one is damaged.
    """
    sides = []
    for prefix, wanted in (("train", train_examples), ("t10k", test_examples)):
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
        chosen = np.linspace(0, len(labels) - 1, min(wanted, len(labels))).astype(np.int64)
        x = images[chosen, np.newaxis].astype(np.float32)
        x /= np.float32(255.0)
        sides.append(Examples(x, labels[chosen].astype(np.int64)))
    return Dataset(train=sides[0], test=sides[1])


def read_idx(path: Path) -> NDArray[np.uint8]:
    """One gzipped IDX file of unsigned bytes, as an array of the shape its header names.

    Layout: 0x00 0x00, type 0x08, number of dimensions d, then d big-endian uint32 sizes, then the bytes
    (Y. LeCun, the MNIST database). Raises EnvironmentProblem FLV-2206 if absent, FLV-2214 if damaged.
    """
    if not path.is_file():
        raise EnvironmentProblem(
            "FLV-2206",
            f"the fashion data set is not on this machine: expected {path.name} in {path.parent}",
            hint="apt-get install dataset-fashion-mnist",
        )
    try:
        content = gzip.decompress(path.read_bytes())
        zero, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        if (zero, kind) != (0, 8):
            raise ValueError(f"expected the magic bytes 00 00 08, got {content[:3].hex(' ')}")  # noqa: TRY301 (told below)
        body = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dimensions)
        return body.reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise EnvironmentProblem(
            "FLV-2214",
            f"the data file {path.name} is damaged: {error}",
            where=str(path),
            hint="apt-get install --reinstall dataset-fashion-mnist",
        ) from error
