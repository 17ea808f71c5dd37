"""Examples from what people have them in: a data set of whatever library, columns, a table, a folder. No torch here.

::

    (x, y)                                        two arrays
    torch.utils.data.Dataset, DataLoader          items or batches: pairs (x, y), or rows by name
    {"image": …, "label": …}, datasets.Dataset    columns by name, as Hugging Face has them; a pandas DataFrame
    "site-3.npz", "site-3.csv", "site-3/"         files; of a folder, those in it, one after the other

Which column is the target is known of the names in ``TARGETS``, or told. What else there is is the input: one column
as it is, several of plain numbers side by side. Examples come in the order of the data, also of a loader that shuffles,
so that every process has the same.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from aggregation.errors import UsageProblem

Array = NDArray[Any]
TARGETS: Final = ("label", "labels", "target", "targets", "y")
"""What a column of targets is called, where nothing else says which it is."""
EXAMPLES_MAX: Final = 50_000_000
"""Of a source that does not say how many it has: one without an end would never end."""
FILES: Final = (".npz", ".csv")
_ROWS_A_BATCH: Final = 1_024
_PAIR: Final = 2
_LOADER: Final = "torch.utils.data.dataloader.DataLoader"
_IN_ORDER: Final = ("SequentialSampler", "RandomSampler")
MALFORMED: Final = "the task's data is malformed: "
_HINT: Final = (
    "give a pair (x, y) of arrays, a Dataset or DataLoader of torch, columns by name, or a .npz; "
    'fluvial.Examples.of(source, x="image", y="label") says which columns are meant'
)


def pair_of(source: object, x: str | Sequence[str] = (), y: str = "") -> tuple[Array, Array]:
    """The inputs and targets of ``source``, as arrays of one length, in its order.

    x, y: the columns that are meant, where the source has names. Raises UsageProblem FLV-2205.
    """
    if isinstance(source, str | Path):
        return _of_path(Path(source), x, y)
    if isinstance(source, tuple | list):
        if len(source) != _PAIR:
            raise _malformed(
                f"expected a pair (x, y), got {len(source)} of them in a {type(source).__name__}"
            )
        return _array(source[0], "x"), _array(source[1], "y")
    if (columns := _columns(source)) is not None:
        return _of_columns(columns, x, y)
    if is_source(source):
        return _joined(_batches(source), x, y)
    raise _malformed(f"expected examples, got {type(source).__name__}")


def is_source(value: object) -> bool:
    """Whether ``pair_of`` may know it, beside pairs: an array or a number alone is no examples."""
    if isinstance(value, tuple | list | bytes | np.ndarray) or hasattr(value, "detach"):
        return False
    return isinstance(value, str | Path | Iterable) or callable(getattr(value, "__getitem__", None))


def parts_of(folder: Path) -> dict[str, Path]:
    """What lies in a folder that has one folder or file a device, by name. Raises UsageProblem FLV-2205."""
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise _malformed(f"{folder} cannot be read: {error.strerror or error}") from error
    parts = {path.stem: path for path in found if path.is_dir() or path.suffix in FILES}
    if not parts:
        raise _malformed(
            f"{folder} has neither folders nor files of {' or '.join(FILES)}: one is one device's"
        )
    return parts


# -- files


def _of_path(path: Path, x: str | Sequence[str], y: str) -> tuple[Array, Array]:
    try:
        if path.is_dir():
            return _of_folder(path, x, y)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                columns: dict[str, Any] = dict(arrays)
            return _of_columns(columns, x or ("x" if "x" in columns else ()), y)
        if path.suffix == ".csv":
            return _of_columns(_table(path), x, y)
    except UsageProblem as problem:
        if str(path) in problem.message:  # of a file in a folder
            raise
        raise _malformed(f"{path}: {problem.message.removeprefix(MALFORMED)}") from problem
    except (OSError, ValueError, zipfile.BadZipFile, csv.Error) as error:
        raise _malformed(f"{path} cannot be read: {error}") from error
    raise _malformed(f"{path} is neither a folder nor a file of {' or '.join(FILES)}")


def _of_folder(folder: Path, x: str | Sequence[str], y: str) -> tuple[Array, Array]:
    if (folder / "x.npy").is_file() and (folder / "y.npy").is_file():
        return np.load(folder / "x.npy", allow_pickle=False), np.load(folder / "y.npy", allow_pickle=False)
    files = sorted(path for path in folder.iterdir() if path.suffix in FILES)
    if not files:
        raise _malformed(
            f"{folder} has no examples: neither x.npy and y.npy nor files of {' or '.join(FILES)}"
        )
    pairs = [_of_path(path, x, y) for path in files]
    return _concatenated([pair[0] for pair in pairs], "x"), _concatenated([pair[1] for pair in pairs], "y")


def _table(path: Path) -> dict[str, Array]:
    """A CSV of numbers with a line of names: its columns, whole numbers where all are."""
    with path.open(newline="", encoding="utf-8") as lines:
        reader = csv.reader(lines)
        names = next(reader, [])
        rows = [row for row in reader if row]
    if len(set(names)) < _PAIR:
        raise _malformed(f"{path} has no line of names with two columns or more")
    columns: dict[str, Array] = {}
    for place, name in enumerate(names):
        try:
            texts = [row[place] for row in rows]
            numbers = np.array(texts, np.float64)
        except (ValueError, IndexError) as error:
            raise _malformed(f"{path}, column {name!r}: {error}") from error
        whole = all(text.strip().lstrip("+-").isdigit() for text in texts)
        columns[name] = numbers.astype(np.int64) if whole else numbers
    return columns


# -- columns


def _columns(source: Any) -> Mapping[str, Any] | None:
    """The columns of a mapping or a pandas DataFrame; None of what has none, or has them a batch at a time."""
    if isinstance(source, Mapping):
        return source
    if callable(getattr(source, "to_numpy", None)) and hasattr(source, "columns"):
        return {str(name): source[name].to_numpy() for name in source.columns}
    return None


def _of_columns(columns: Mapping[Any, Any], x: str | Sequence[str], y: str) -> tuple[Array, Array]:
    names = [str(name) for name in columns]
    if not y:
        known = [name for name in names if name.lower() in TARGETS]
        if len(known) != 1:
            which = f"{', '.join(known)} could all be" if known else "none is called"
            raise _malformed(f"of the columns {', '.join(names)} {which} the target, {' or '.join(TARGETS)}")
        y = known[0]
    inputs = [x] if isinstance(x, str) else list(x) or [name for name in names if name != y]
    for name in [y, *inputs]:
        if name not in names:
            raise _malformed(f"there is no column {name!r}; there are {', '.join(names)}")
    if not inputs:
        raise _malformed(f"beside the target {y!r} there is no column of inputs")
    made = [_array(columns[name], name) for name in inputs]
    if len(made) == 1:
        return made[0], _array(columns[y], y)
    for name, column in zip(inputs, made, strict=True):
        if column.ndim != 1 or column.dtype.kind not in "fiub" or len(column) != len(made[0]):
            raise _malformed(
                f"the column {name!r} is {column.dtype}{list(column.shape)}, and of several columns of inputs each is "
                "one number an example; name the one that is meant"
            )
    return np.stack([column.astype(np.float32) for column in made], axis=1), _array(columns[y], y)


# -- items and batches


def _batches(source: Any) -> Iterator[tuple[list[Any], bool]]:
    """(items, whether each of them is a batch of examples), in the data's own order."""
    bases = {f"{base.__module__}.{base.__qualname__}" for base in type(source).__mro__}
    if _LOADER in bases and source.batch_size is not None:
        if type(source.sampler).__name__ not in _IN_ORDER or not hasattr(source.dataset, "__getitem__"):
            for batch in source:
                yield [batch], True
            return
        dataset, size = source.dataset, int(source.batch_size)
        for start in range(0, len(dataset), size):
            items = [dataset[number] for number in range(start, min(start + size, len(dataset)))]
            yield [source.collate_fn(items)], True
        return
    length = len(source) if hasattr(source, "__len__") else None
    if length is not None and hasattr(
        source, "column_names"
    ):  # Hugging Face's: a slice is a batch of columns
        for start in range(0, length, _ROWS_A_BATCH):
            yield [source[start : start + _ROWS_A_BATCH]], True
        return
    if length is not None and hasattr(source, "__getitem__"):
        for start in range(0, length, _ROWS_A_BATCH):
            yield [source[number] for number in range(start, min(start + _ROWS_A_BATCH, length))], False
        return
    rest = iter(source)
    while items := list(islice(rest, _ROWS_A_BATCH)):
        yield items, False


def _joined(batches: Iterable[tuple[list[Any], bool]], x: str | Sequence[str], y: str) -> tuple[Array, Array]:
    inputs, targets, count = list[Array](), list[Array](), 0
    for items, whole in batches:
        if whole:
            one, other = pair_of(items[0], x, y)
        elif isinstance(items[0], Mapping):
            one, other = _of_columns(_turned(items, count), x, y)
        else:
            pairs = [_pair(item, count + number) for number, item in enumerate(items)]
            one, other = (
                _stacked([pair[0] for pair in pairs], count),
                _stacked([pair[1] for pair in pairs], count),
            )
        inputs.append(one)
        targets.append(other)
        count += len(one)
        if count > EXAMPLES_MAX:
            raise _malformed(f"it has more than {EXAMPLES_MAX} examples, or no end")
    if not inputs:
        raise _malformed("it has no examples")
    return _concatenated(inputs, "x"), _concatenated(targets, "y")


def _pair(item: Any, number: int) -> tuple[Any, Any]:
    if not isinstance(item, tuple | list) or len(item) != _PAIR:
        raise _malformed(f"item {number} is no pair (x, y) and no row by name, but {type(item).__name__}")
    return item[0], item[1]


def _turned(rows: Sequence[Any], first: int) -> dict[str, Array]:
    """Rows by name as columns."""
    names = list(rows[0])
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping) or list(row) != names:
            raise _malformed(
                f"item {first + number} has not the names of the items before it, {', '.join(map(str, names))}"
            )
    return {str(name): _stacked([row[name] for row in rows], first) for name in names}


def _stacked(values: Sequence[Any], first: int) -> Array:
    arrays = [_array(value, f"item {first + number}") for number, value in enumerate(values)]
    shape = arrays[0].shape
    for number, array in enumerate(arrays):
        if array.shape != shape:
            raise _malformed(
                f"item {first + number} is of shape {list(array.shape)}, and item {first} of {list(shape)}; "
                "all have to be alike"
            )
    return np.stack(arrays)


def _concatenated(arrays: Sequence[Array], name: str) -> Array:
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) > 1:
        raise _malformed(
            f"{name} has examples of the shapes {' and '.join(str(list(shape)) for shape in sorted(shapes))}"
        )
    return np.concatenate(arrays)


def _array(value: Any, name: str) -> Array:
    """Of a tensor (also one with a gradient, or on another device), an image, a list, a number."""
    if callable(getattr(value, "detach", None)):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise _malformed(f"{name} is no array of numbers: {error}") from error
    if array.dtype.kind not in "fiub":
        raise _malformed(f"{name} is no array of numbers, but {array.dtype}{list(array.shape)}")
    return array


def _malformed(message: str) -> UsageProblem:
    return UsageProblem("FLV-2205", f"{MALFORMED}{message}", hint=_HINT)
