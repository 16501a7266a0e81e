"""How far a run is: a bar on a terminal of any width, and now and then a line where standard error is none."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from .messages import say

if TYPE_CHECKING:
    from ...engine.optimizers.coarse_to_fine import Progress

FIRST_LINE, NEXT_LINE = 2.0, 10.0  # seconds: until the first line, and from one to the next

# Columns from which on a part of the bar is shown; the counter and the time left always are.
NAME, BAR, COST, SIZE, PACE = 30, 38, 52, 72, 90

Show = Callable[["Progress"], None]


@contextmanager
def shown(iterations: int) -> Iterator[Show]:
    """Shows the progress of a run of so many iterations, as standard error can; what goes with its terminal is lost."""
    lost = (OSError, ValueError)  # the latter of a stream that is closed
    with ExitStack() as stack:
        drawn: Show | None = None
        with suppress(*lost):
            drawn = stack.enter_context(bar(iterations) if on_terminal() else _lines())

        def show(progress: "Progress") -> None:
            nonlocal drawn
            if drawn is not None:
                try:
                    drawn(progress)
                except lost:
                    drawn = None

        try:
            yield show
        finally:
            with suppress(*lost):
                stack.close()


def on_terminal() -> bool:
    """Whether standard error is a terminal whose lines can be written anew."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def pulse(now: Callable[[], float] = time.monotonic) -> Callable[[], bool]:
    """Returns a function that says whether a line is due: after FIRST_LINE seconds, then every NEXT_LINE."""
    due = now() + FIRST_LINE

    def is_due() -> bool:
        nonlocal due
        moment = now()
        if moment < due:
            return False
        due = moment + NEXT_LINE
        return True

    return is_due


@contextmanager
def _lines() -> Iterator[Show]:
    due, pace = pulse(), _pace()

    def show(progress: "Progress") -> None:
        speed = pace(progress)
        if due():
            parts = [f"{progress.iteration} of {progress.iterations}", f"cost {progress.costs.total:.4g}", speed]
            say(f"{_scale(progress)}: {', '.join([*filter(None, parts), f'{clock(progress.remaining)} left'])}")

    yield show


@contextmanager
def bar(iterations: int) -> Iterator[Show]:
    from rich import progress as rich
    from rich.console import Console
    from rich.progress_bar import ProgressBar
    from rich.table import Column

    class Lasting(Console):
        def on_broken_pipe(self) -> None:  # which would end the process
            self.quiet = True

    console = Lasting(stderr=True)

    class Bar(rich.BarColumn):
        def render(self, task: rich.Task) -> ProgressBar:
            self.bar_width = None if console.width >= BAR else 1
            return super().render(task)

    def text(field: str) -> rich.TextColumn:
        return rich.TextColumn(f"{{task.fields[{field}]}}", table_column=Column(no_wrap=True), markup=False)

    columns = (text("name"), Bar(bar_width=None), text("count"), text("cost"), text("pace"), text("left"))
    with rich.Progress(*columns, console=console) as bars:
        task = bars.add_task("", total=iterations, name="", count=f"0/{iterations}", cost="", pace="", left="")
        pace = _pace()

        def show(progress: "Progress") -> None:
            speed, width = pace(progress), console.width
            name = _scale(progress) if width >= SIZE else f"{progress.scale}/{progress.scales}" if width >= NAME else ""
            bars.update(
                task,
                completed=progress.iteration,
                name=name,
                count=f"{progress.iteration}/{progress.iterations}",
                cost=f"cost {progress.costs.total:.4g}" if width >= COST else "",
                pace=speed if width >= PACE else "",
                left=f"{clock(progress.remaining)} left",
            )

        yield show


def _scale(progress: "Progress") -> str:
    where = f"{progress.size[1]}x{progress.size[0]}"
    return where if progress.scales == 1 else f"scale {progress.scale}/{progress.scales} {where}"


def _pace() -> Callable[["Progress"], str]:
    """Iterations a second, over the whole of the present scale, since a GPU tells of several iterations at once."""
    scale, before, last = 0, (0, 0.0), (0, 0.0)  # iterations and seconds, up to this scale and so far

    def pace(progress: "Progress") -> str:
        nonlocal scale, before, last
        if progress.scale != scale:
            scale, before = progress.scale, last
        last = progress.iteration, progress.seconds
        spent = progress.seconds - before[1]
        return f"{(progress.iteration - before[0]) / spent:.1f} it/s" if spent > 0 else ""

    return pace


def clock(seconds: float) -> str:
    """0:05, 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
