"""Before anything is started: one batch of a task's own train() and evaluate(), with a line of progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluvial.terminal.output import Reporter
    from learning import Task
    from learning.checking import CheckReport


def check_users(task: Task | str, output: Reporter, *, seed: int = 0) -> CheckReport | None:
    """``check_first``; tasks that ship were checked when they were made, unless they are given other settings."""
    from learning.task import SHIPPED_TASKS_FOLDER, load_task

    loaded = load_task(task) if isinstance(task, str) else task
    is_shipped = loaded.path.parent == SHIPPED_TASKS_FOLDER
    as_shipped = is_shipped and loaded.config == loaded.with_settings({}).config
    return None if as_shipped else check_first(loaded, output, seed=seed)


def devices_of_task(task: Task, asked: int | None, default: int, output: Reporter) -> int:
    """How many devices a task is run with: ``learning.parts.devices_of``; natural parts are said."""
    from learning.parts import devices_of, parts_in_words
    from learning.shipped import WITH_PARTS
    from learning.task import SHIPPED_TASKS_FOLDER

    if task.path.parent == SHIPPED_TASKS_FOLDER and task.shipped_data not in WITH_PARTS:
        return default if asked is None else asked
    data = task.data()
    number = devices_of(data, asked, default)
    if data.parts:
        output.say(f"{number} devices, as the data has parts: {parts_in_words(data, number)}")
    return number


def check_first(
    task: Task, output: Reporter, *, seed: int = 0, seconds_max: float | None = None, path: str = ""
) -> CheckReport:
    """Check ``task`` and say what came out. Raises what ``learning.checking.check_task`` raises."""
    from learning.checking import CHECK_S_MAX, check_task

    file = task.path.name
    output.say(f"checking {file}: one batch of train() and evaluate()")
    with output.waiting(f"one batch of {file} (`--no-check` leaves it out)"):
        limit_s = CHECK_S_MAX if seconds_max is None else seconds_max
        report = check_task(task, seed=seed, seconds_max=limit_s, path=path)
    output.say(in_words(file, report))
    for note in report.notes:
        output.say(f"note: {note}")
    return report


def in_words(file: str, report: CheckReport) -> str:
    """One line on a report."""
    if not report.unfinished and not report.trained:
        return f"{file} loads, and its model is one"
    if report.unfinished:
        return (
            f"{file} is not checked to the end: {report.unfinished} took longer than {report.seconds:.0f} s"
        )
    metrics = "  ".join(f"{name} {value:.4g}" for name, value in sorted(report.evaluated.items()))
    return f"{file} works on one batch, {report.seconds:.1f} s: {metrics}"
