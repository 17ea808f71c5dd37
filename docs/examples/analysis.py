"""How is the model, and what does it cost? Read exported metrics with DuckDB and pandas.

fluvial parquet OUT
python docs/examples/analysis.py OUT
"""

# ruff: noqa: INP001, S608, T201
# %% The files of one folder are one table. Records may come twice: the first by its key counts.
from __future__ import annotations

import sys

import duckdb

FOLDER = sys.argv[1] if len(sys.argv) > 1 else "export"
SOURCE = f"read_parquet('{FOLDER}/*.metrics.*.parquet', union_by_name = true)"
FIRST = """QUALIFY row_number() OVER (PARTITION BY task, kind, version, region, partition, sequence, minute_ms
                                   ORDER BY log_partition, "offset") = 1"""
database = duckdb.connect()
database.execute(f"CREATE VIEW metrics AS SELECT * FROM {SOURCE} {FIRST}")

# %% How many records of each kind are there?
print(database.sql("SELECT kind, count(*) AS records FROM metrics GROUP BY kind ORDER BY kind").df())

# %% Is the model getting better, and for everybody?
curve = database.sql(
    """SELECT version, metric, better, metric_value, fairness_gap FROM metrics
       WHERE kind = 'evaluation' ORDER BY version"""
).df()
print(curve.to_string(index=False))

# %% Do the updates drift? Norms of the accepted updates, by version.
drift = database.sql(
    """SELECT version, avg(norm_p50) AS norm, avg(norm_p90) AS norm_p90, sum(accepted) AS updates FROM metrics
       WHERE kind = 'window' GROUP BY version ORDER BY version"""
).df()
print(drift.to_string(index=False))

# %% What does a region contribute and cost? Pieces of a minute are added up.
regions = database.sql("SELECT * FROM metrics WHERE kind = 'region_minute'").df()
columns = [
    "records",
    "accepted",
    "refused",
    "bytes_up",
    "bytes_down",
    "storage_bytes",
    "device_seconds",
    "cost_total",
]
print(regions.groupby("region")[columns].sum())

# %% And a cohort, as the devices say it themselves? Fields cohort_<k>_<what>; none where no device says one.
cohorts = regions.filter(regex=r"^cohort_\d+_").sum()
cohorts.index = cohorts.index.str.extract(r"^cohort_(\d+)_(.*)$").astype({0: int}).set_index([0, 1]).index
print(
    cohorts.unstack().rename_axis(index="cohort", columns=None) if len(cohorts) else "no device says a cohort"
)
