"""Two tables that lie in the scikit-learn wheel: ``breast_cancer`` and ``diabetes``. No torch here."""

from __future__ import annotations

from functools import lru_cache
from io import StringIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from learning.datasets import Dataset, held_out
from learning.package_files import text_of

_DATA: Final = "datasets/data"
_AGE, _SEX = 0, 1
_DECADE_YEARS: Final = 10
_DECADE_MIN, _DECADE_MAX = 2, 6
"""Younger patients count among the twenties, older ones among the sixties: there are few."""


@lru_cache(maxsize=1)
def breast_cancer() -> Dataset:
    """569 tumours: x float32[n, 30], of each measure how many standard deviations from the mean; y 0 or 1 (benign).

    The split is fixed and stratified, as that of ``digits``. Nobody knows which hospital saw whom: devices share it by
    Dirichlet. Source: W. Wolberg, W. Street, O. Mangasarian, Breast Cancer Wisconsin (Diagnostic), UCI repository.
    Raises EnvironmentProblem FLV-2206 where scikit-learn is not installed.
    """
    lines = text_of("sklearn", f"{_DATA}/breast_cancer.csv", "breast_cancer").splitlines()[1:]
    table = np.loadtxt(lines, delimiter=",")
    x, labels = _standardized(table[:, :-1]), table[:, -1].astype(np.int64)
    test = held_out(labels)
    return Dataset(train=(x[~test], labels[~test]), test=(x[test], labels[test]))


@lru_cache(maxsize=1)
def diabetes() -> Dataset:
    """442 patients of ten clinics: x float32[n, 10], y float32[n], both in standard deviations from the mean.

    x: age, sex, body mass index, blood pressure, six blood serum measures. y: how the disease went on after a year. A
    clinic has the patients of one sex and one decade of age, from the twenties to the sixties, so clinics differ as
    their patients do: ``clinic_of``. Of each, every fifth patient is for testing. Source: B. Efron et al., Least Angle
    Regression, Annals of Statistics, 2004. Raises EnvironmentProblem FLV-2206 where scikit-learn is not installed.
    """
    table = _diabetes_table()
    y = np.loadtxt(StringIO(text_of("sklearn", f"{_DATA}/diabetes_target.csv.gz", "diabetes")))
    x, y = _standardized(table), (y - y.mean()) / y.std()
    clinics = _clinics(table)
    test = held_out(clinics)
    parts = {}
    for clinic in np.unique(clinics):
        mine = (clinics == clinic) & ~test
        parts[clinic_name(int(clinic))] = (x[mine], y[mine])
    return Dataset(parts=parts, test=(x[test], y[test]))


def clinic_of(x: NDArray[Any]) -> NDArray[np.int64]:
    """int64[n], 0 to 9: the clinic of each patient, by the inputs x float[n, 10] of ``diabetes``."""
    table = _diabetes_table()
    return _clinics(x * table.std(axis=0) + table.mean(axis=0))


def clinic_name(clinic: int) -> str:
    """``sex-2-age-50``, of the clinic's number: the table says 1 or 2 of the sex, and no more."""
    decade, sex = divmod(clinic, 2)
    return f"sex-{sex + 1}-age-{(decade + _DECADE_MIN) * _DECADE_YEARS}"


@lru_cache(maxsize=1)
def _diabetes_table() -> NDArray[np.float64]:
    return np.loadtxt(StringIO(text_of("sklearn", f"{_DATA}/diabetes_data_raw.csv.gz", "diabetes")))


def _clinics(table: NDArray[Any]) -> NDArray[np.int64]:
    # Halves are added because a number that went through float32 may be a little below a whole one.
    decade = np.clip((table[:, _AGE] + 0.5) // _DECADE_YEARS, _DECADE_MIN, _DECADE_MAX) - _DECADE_MIN
    return np.asarray(2 * decade + np.rint(table[:, _SEX]) - 1, dtype=np.int64)


def _standardized(table: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray((table - table.mean(axis=0)) / table.std(axis=0), dtype=np.float32)
