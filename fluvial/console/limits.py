"""Every bound of the console, by name. What it may read, keep, serve and wait for follows from these alone."""

from __future__ import annotations

from typing import Final

HOST: Final = "127.0.0.1"
PORT: Final = 8440

PAGE_RECORDS: Final = 500
"""Records of topics that one request may read."""
PAGE_OBJECTS: Final = 50
"""Objects of the store that one request may read, or ask for."""
PAGE_SECONDS: Final = 8.0
"""How long one request may wait for records."""
DEFENCE_PARTITIONS_MAX: Final = 20
"""Partitions whose newest state one request reads: each is an object of the store, and a policy."""
ROWS_MAX: Final = 100
"""Rows of one answer."""
CURVE_POINTS: Final = 300
CURVE_POINTS_MAX: Final = 2000
NOW_POINTS: Final = 120
"""Points of the curve in ``now``."""

VIEWERS_MAX: Final = 64
"""Open event streams."""
CONNECTIONS_MAX: Final = 256
"""Open connections: well below what a process may have open files."""
IDLE_S: Final = 15.0
"""A connection that has no whole request under way for so long is closed."""
BODY_S_MAX: Final = 10.0
"""A request's body comes in so long, or not at all."""
REQUESTS_WAITING_MAX: Final = 32
"""Requests that may wait for a reader."""
READERS_MAX: Final = 3
"""Requests that read topics or the store at one time."""
TASKS_MAX: Final = 8
"""Tasks that are followed at one time; the one looked at least recently is let go."""
REQUEST_BYTES_MAX: Final = 4096
"""Of a request's body."""
TEXT_CHARACTERS_MAX: Final = 256
"""Of an id or a name in a query, and of what is kept of a device's."""

LOOK_S: Final = 1.0
"""Between two looks at the logs' ends, the store, the processes; and between two events."""
GROUPS_EVERY_S: Final = 5.0
FIRST_LOOK_S: Final = 5.0
"""How long a page waits for the first look at store and log, before it says that nothing is known."""
LOOK_STALE_S: Final = 8.0
"""A source whose last answer is older than this is away."""
BROKER_ANSWER_S: Final = 1.5
REOPEN_S: Final = 1.0
"""Pause before a thread that failed opens everything again."""
PORT_ANSWER_S: Final = 0.5
SLOW_LOOKS_MAX: Final = 5
"""Looks in which a process may take longer, before it counts as gone; one without its port is gone at once."""
PROCESSES_MAX: Final = 64
COMMENT_EVERY_S: Final = 10.0
SEND_S_MAX: Final = 15.0
"""A viewer that takes no byte for so long is let go."""
HEAD_PROBES_MAX: Final = 64
"""Objects that one look may ask for to find the head; it goes on from there at the next look."""
MANIFESTS_KEPT: Final = 20

VERDICTS_TAIL: Final = 2000
"""Verdicts of each partition that are read back at the start."""
METRICS_TAIL: Final = 50_000
AGGREGATES_TAIL: Final = 200
REFUSALS_KEPT: Final = 5000
UPDATES_KEPT: Final = 50_000
"""Update ids whose place is remembered."""
DEVICES_MAX: Final = 100_000
EVALUATIONS_KEPT: Final = 10_000
WINDOWS_KEPT: Final = 20_000
"""Windows whose cost and version are remembered."""
OPEN_RECORDS_MAX: Final = 10_000
"""Records of one partition's open window whose times are remembered."""
STALENESS_KEPT: Final = 500

SERIES_SECONDS: Final = 120
SERIES_STEP_SECONDS: Final = 2
RATE_SECONDS: Final = 60
ARRIVING_SECONDS: Final = 10
"""Updates arrive while one was judged in the last so many seconds."""
FLOW_SECONDS: Final = 10
"""Rates of ``flow`` are means over so long, trends compare with so long ago."""

AUDITS_KEPT: Final = 20
AUDIT_SECONDS_MAX: Final = 3600.0
AUDIT_OUTPUT_BYTES_MAX: Final = 16 << 20
AUDIT_END_S: Final = 5.0
"""How long an audit that is cancelled may take to end."""
