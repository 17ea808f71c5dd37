"""What a task's data may be: arrays, torch's data sets and loaders, columns, tables, folders; always the same examples.

The real ``datasets`` of Hugging Face is tried in ``tests/long/test_hugging_face.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, SubsetRandomSampler, TensorDataset

from aggregation.errors import UsageProblem
from learning import sources
from learning.datasets import Dataset, Examples
from learning.local_data import local_examples
from learning.users_examples import users_examples

N = 2_500  # more than one batch of items
X = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
Y = np.arange(N) % 4
TENSORS = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """A map-style data set whose items are rows by name, a number among them that is no tensor."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"img": torch.from_numpy(X[index]), "label": int(Y[index])}


class Stream(IterableDataset[tuple[np.ndarray, int]]):
    """It does not say how long it is."""

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        return zip(X, Y.tolist(), strict=True)


class Columns:
    """Of the protocol of a Hugging Face data set: a slice of it is a mapping of lists."""

    column_names = ("image", "label")

    def __len__(self) -> int:
        return N

    def __getitem__(self, rows: slice) -> dict[str, Any]:
        assert isinstance(rows, slice), "one at a time would be slow"
        return {"image": X[rows].tolist(), "label": Y[rows].tolist()}


def collate(items: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.stack([item["img"] for item in items]), torch.tensor([item["label"] for item in items])


SOURCES: dict[str, object] = {
    "a pair": (X, Y),
    "a pair in a list": [X, Y],
    "tensors": TENSORS,
    "rows": Rows(),
    "a stream": Stream(),
    "a subset": Subset(TENSORS, range(N)),
    "a loader": DataLoader(TENSORS, batch_size=64),
    "a loader that shuffles": DataLoader(TENSORS, batch_size=64, shuffle=True),
    "a loader that drops its last batch": DataLoader(TENSORS, batch_size=64, drop_last=True),
    "a loader of rows": DataLoader(Rows(), batch_size=1_000),
    "a loader that makes pairs of rows": DataLoader(Rows(), batch_size=64, collate_fn=collate),
    "a loader of a stream": DataLoader(Stream(), batch_size=64),
    "a loader without batches": DataLoader(TENSORS, batch_size=None),
    "columns": {"image": X, "label": Y},
    "columns the other way round": {"target": torch.from_numpy(Y), "pixels": torch.from_numpy(X)},
    "columns a slice at a time": Columns(),
    "a column a number": {"a": X[:, 0], "b": X[:, 1], "y": Y, "c": X[:, 2]},
    "a data frame": pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "Label": Y}),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_it_gives_the_same_examples_in_the_same_order(source: object) -> None:
    for examples in (
        Examples.of(source),
        Dataset(train=source, test=(X, Y)).train,
        Dataset(train=(X, Y), test=source).test,
    ):
        assert (str(examples.x.dtype), str(examples.y.dtype)) == ("float32", "int64")
        np.testing.assert_array_equal(examples.x, X)
        np.testing.assert_array_equal(examples.y, Y)


def test_a_loader_with_a_choice_of_its_own_gives_what_it_chooses() -> None:
    loader = DataLoader(TENSORS, batch_size=8, sampler=SubsetRandomSampler([5, 6, 7]))
    assert sorted(Examples.of(loader).y.tolist()) == sorted(Y[[5, 6, 7]].tolist())


def test_columns_may_be_named() -> None:
    columns = {"a": X[:, 0], "b": X[:, 1], "label": Y, "other": Y + 1, "id": np.array(["text"] * N)}
    assert Examples.of(columns, x=["b", "a"], y="other").x.tolist() == X[:, [1, 0]].tolist()
    assert Examples.of(columns, x="a", y="other").y.tolist() == (Y + 1).tolist()
    assert Examples.of(Rows(), x="img", y="label").x.shape == (N, 3)
    assert Examples.of(DataLoader(Rows(), batch_size=9), x="img").x.shape == (N, 3)


def test_parts_may_be_any_of_them() -> None:
    names = ("a pair", "tensors", "a loader", "columns", "columns a slice at a time")
    data = Dataset(parts={name: SOURCES[name] for name in names}, test=SOURCES["a stream"])
    assert list(data.parts) == [name.replace(" ", "-") for name in names]
    for part in data.parts.values():
        np.testing.assert_array_equal(part.x, X)
    assert (
        users_examples(Path("own.py"), "local_data(path)", "FLV-2234", lambda: TENSORS).y.tolist()
        == Y.tolist()
    )


# -- files


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    """A folder with one folder or file a device."""
    for number in range(2):
        (tmp_path / "sites" / f"Site {number}").mkdir(parents=True)
    np.savez(tmp_path / "sites" / "Site 0" / "b.npz", x=X[2:5], y=Y[2:5])
    np.savez(tmp_path / "sites" / "Site 0" / "a.npz", x=X[:2], y=Y[:2])
    (tmp_path / "sites" / "Site 0" / "notes.txt").write_text("not data")
    np.save(tmp_path / "sites" / "Site 1" / "x.npy", X[:4])
    np.save(tmp_path / "sites" / "Site 1" / "y.npy", Y[:4])
    np.savez(tmp_path / "sites" / "site-2.npz", image=X[:3], label=Y[:3])
    text = "a,b,c,label\n" + "".join(
        f"{a!r},{b!r},{c!r},{y}\n" for (a, b, c), y in zip(X[:6].tolist(), Y, strict=False)
    )
    (tmp_path / "sites" / "site-3.csv").write_text(text)
    (tmp_path / "sites" / "README.md").write_text("not data")
    return tmp_path / "sites"


def test_a_folder_may_have_one_folder_or_file_a_device(sites: Path) -> None:
    data = Dataset(parts=str(sites), test=sites / "site-2.npz")
    assert {name: len(part) for name, part in data.parts.items()} == {
        "site-0": 5,
        "site-1": 4,
        "site-2": 3,
        "site-3": 6,
    }
    for part in data.parts.values():
        np.testing.assert_array_equal(part.x, X[: len(part)])
        assert part.y.dtype == np.int64
        np.testing.assert_array_equal(part.y, Y[: len(part)])


def test_a_device_needs_no_function_to_read_such_a_file_or_folder(sites: Path) -> None:
    import types

    for path in sites.iterdir():
        if path.suffix != ".md":
            assert local_examples(types.ModuleType("own"), Path("own.py"), str(path)).x.shape[1:] == (3,)


def test_a_column_with_a_fraction_in_it_is_a_number_to_foretell(tmp_path: Path) -> None:
    (tmp_path / "houses.csv").write_text("rooms,area,target\n3,70.5,250\n4,100,310.5\n\n")
    examples = Examples.of(tmp_path / "houses.csv")
    assert (examples.x.tolist(), examples.y.tolist()) == ([[3.0, 70.5], [4.0, 100.0]], [250.0, 310.5])


# -- what is refused, by name


def broken(rows: list[Any]) -> object:
    class Broken:
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, index: int) -> Any:
            return rows[index]

    return Broken()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (broken([(X[0], 1), (X[0], 1, 2)]), "item 1 is no pair (x, y) and no row by name, but tuple"),
        (broken([X[0]]), "item 0 is no pair (x, y) and no row by name, but ndarray"),
        (broken([(X[0], 1), (X[0, :2], 1)]), "item 1 is of shape [2], and item 0 of [3]"),
        (broken([(X[0], 1), (X[0], "cat")]), "item 1 is no array of numbers, but <U3[]"),
        (broken([{"x": X[0], "y": 1}, {"x": X[0]}]), "item 1 has not the names of the items before it, x, y"),
        (broken([]), "it has no examples"),
        ({"image": X, "text": Y}, "of the columns image, text none is called the target"),
        ({"label": Y, "target": Y, "x": X}, "label, target could all be the target"),
        ({"label": Y}, "beside the target 'label' there is no column of inputs"),
        (
            {"image": X, "more": X, "label": Y},
            "the column 'image' is float32[2500, 3], and of several columns",
        ),
        ({"a": X[:, 0], "b": X[:9, 1], "label": Y}, "the column 'b' is float32[9]"),
        ({"image": [X[0], X[0, :2]], "label": [0, 1]}, "image is no array of numbers"),
        ({}, "none is called the target"),
        ("nowhere.npz", "nowhere.npz cannot be read"),
        ("nowhere.parquet", "nowhere.parquet is neither a folder nor a file of .npz or .csv"),
    ],
)
def test_what_is_no_examples_names_what_is_wrong(source: object, said: str) -> None:
    with pytest.raises(UsageProblem) as raised:
        Examples.of(source)
    assert raised.value.error_id == "FLV-2205"
    assert said in raised.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no line of names with two columns or more"),
        ("a,a\n1,2\n", "has no line of names with two columns or more"),
        ("a,label\n1,cat\n", "column 'label': could not convert string to float: 'cat'"),
        ("a,label\n1\n", "column 'label'"),
        ("a,b\n1,2\n", "none is called the target"),
    ],
)
def test_a_table_that_cannot_be_read_is_named_with_its_column(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UsageProblem) as raised:
        Dataset(train=(X, Y), test=str(tmp_path / "t.csv"))
    assert "t.csv" in raised.value.message
    assert said in raised.value.message


def test_folders_without_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="neither folders nor files"):
        Dataset(parts=tmp_path, test=(X, Y))
    (tmp_path / "site").mkdir()
    with pytest.raises(UsageProblem, match=r"part 'site'.*has no examples"):
        Dataset(parts=tmp_path, test=(X, Y))
    with pytest.raises(UsageProblem, match="nowhere cannot be read"):
        Dataset(parts=tmp_path / "nowhere", test=(X, Y))


def test_nothing_that_is_pickled_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", x=np.array([print], dtype=object), y=np.zeros(1))
    with pytest.raises(UsageProblem, match="cannot be read"):
        Examples.of(tmp_path / "evil.npz")


def test_a_source_without_an_end_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        def __iter__(self) -> Iterator[tuple[float, int]]:
            while True:
                yield 0.5, 1

    monkeypatch.setattr(sources, "EXAMPLES_MAX", 5_000)
    with pytest.raises(UsageProblem, match="more than 5000 examples, or no end"):
        Examples.of(Endless())
