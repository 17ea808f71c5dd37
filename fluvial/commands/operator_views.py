"""How ``fluvial status`` and ``fluvial audit`` look to people: a table a region, colour on a terminal only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from fluvial.reading.progress import sparkline
from fluvial.reading.quality import in_digits

if TYPE_CHECKING:
    from fluvial.proof.audit import AuditReport
    from fluvial.reading.status import PartitionStatus, Status
    from fluvial.terminal.output import Output

SHORT_HASH: Final = 12
SPARK_WIDTH: Final = 40
LAG_WARN_S: Final = 10.0
LAG_BAD_S: Final = 60.0
REFUSED_WARN_SHARE: Final = 0.2
_GOOD, _WARN, _BAD = "green", "yellow", "bold red"


def duration(seconds: float) -> str:
    """In the largest unit that leaves at least two of it."""
    for unit, unit_s in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.1f} {unit}"
    return f"{seconds:.0f} s"


def show_status(output: Output, found: Status) -> None:
    """Head, the metric with its curve, the refused share, then every region: who works on it, and its partitions."""
    settings = found.view.settings
    document = found.document()
    output.print(
        f"task {found.view.task}   Kafka {settings.bootstrap_servers}   {settings.store.kind} {settings.store.url}"
    )
    age = "its age is not known" if found.age_s is None else f"{duration(found.age_s)} old"
    output.print(
        f"version {found.head}, {age}, model {document['head']['model_sha256'][:SHORT_HASH]}", "bold"
    )
    _show_metric(output, found)
    if found.refused_share is not None:
        output.print(
            f"refused {found.refused_share:.1%} of the records in the last {found.versions_counted} versions",
            _WARN if found.refused_share > REFUSED_WARN_SHARE else "",
        )
    for group in found.groups:
        members = ", ".join(f"{one.called} {list(one.partitions)}" for one in group.members)
        output.print(
            f"workers {group.name}: {group.state}, {members or 'nobody'}", "" if group.members else _BAD
        )
    for region in found.view.genesis.partitions:
        partitions = [one for one in found.partitions if one.slot[0] == region]
        output.print()
        output.table(
            ["partition", "log end", "folded to", "lag", "lag time", "trend", "windows", "not merged"],
            [_partition_row(one) for one in partitions],
        )


def _show_metric(output: Output, found: Status) -> None:
    name, best = found.quality.name, found.quality.best()
    if not found.curve or best is None:
        output.print(f"{name} not evaluated yet (`fluvial evaluator` does it)")
        return
    (first, oldest), (last, newest) = found.curve[0], found.curve[-1]
    spark = sparkline([value for _, value in found.curve], SPARK_WIDTH)
    output.print(
        f"{name} {in_digits(newest)} (version {last})   {spark}  {in_digits(oldest)} at version {first}"
    )
    if best[0] != last:
        output.print(f"best {name} {in_digits(best[1])} at version {best[0]}")


def _partition_row(one: PartitionStatus) -> tuple[object, ...]:
    lag = _WARN if one.lag_s > LAG_WARN_S else _GOOD
    lag = _BAD if one.lag_s > LAG_BAD_S else lag
    trend = {"rising": "▲ rising", "falling": "▼ falling", "steady": "= steady"}.get(one.trend, one.trend)
    return (
        f"{one.slot[0]}[{one.slot[1]}]",
        one.log_end,
        Text(str(one.folded_to), style=_BAD if one.folded_to > one.log_end else ""),
        one.lag_records,
        Text(f"{one.lag_s:.1f} s", style=lag),
        Text(trend, style=_WARN if one.trend == "rising" else ""),
        one.windows,
        one.windows_waiting,
    )


def _show_verdicts(output: Output, report: AuditReport) -> None:
    """How many verdicts were compared, why not all, and what stands in the topics that nobody vouches for."""
    from fluvial.proof.audit.strays import WORDS, writers

    compared = report.verdicts_compared
    if compared:
        vouched = report.verdicts_vouched
        output.print(
            f"compared the verdicts of {compared} offsets; workers vouch for {vouched} of what was folded"
        )
    for one in report.partitions:
        if one.verdicts.because:
            output.say(f"verdicts of {one.name} were not all compared: {one.verdicts.because}")
    for topic, strays in report.strays_by_topic():
        kinds = ", ".join(f"{count} {WORDS[kind]}" for kind, count in sorted(strays.kinds.items()))
        output.say(
            f"records that nobody of the task vouches for stand in {topic}: {kinds}; they prove nothing and change "
            f"nothing, and {writers(topic)} can have written them   (first: {strays.named[0]})"
        )


def show_audit(output: Output, report: AuditReport) -> None:
    """What was folded, a table of the partitions, every difference that is shown, and the verdict as the last line."""
    rate = report.records / report.seconds if report.seconds > 0 else 0.0
    output.print(
        f"folded {report.records} records of {len(report.partitions)} partitions ({report.updates} updates count) "
        f"in {report.seconds:.1f} s with {report.jobs} process{'' if report.jobs == 1 else 'es'}, {rate:.0f} a second"
    )
    if report.partitions and output.out.is_terminal:
        output.print()
        output.table(
            ["partition", "offsets", "records", "updates", "windows", "differences"],
            [
                (
                    one.name,
                    f"{one.first_offset}..{one.next_offset}",
                    one.records,
                    one.updates,
                    len(one.aggregates),
                    Text(f"✗ {one.findings.total}", style=_BAD)
                    if one.findings.total
                    else Text("✓ none", style=_GOOD),
                )
                for one in report.partitions
            ],
        )
        output.print()
    _show_verdicts(output, report)
    for difference in report.findings:
        output.print(f"[{difference.error_id}] {difference}", style="red")
    hidden = report.findings.total - len(report.findings.shown)
    if hidden:
        output.print(f"showing {len(report.findings.shown)} of {report.findings.total} differences")
    output.print(f"audit digest {report.digest}")
    if report.identical:
        output.print(f"identical: {report.versions} versions, bit for bit", style="bold green")
