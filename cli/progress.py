"""How far a run is, as a bar on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engine.run import Progress


@contextmanager
def bar(iterations: int) -> Iterator[Callable[["Progress"], None]]:
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=None),
        rich.MofNCompleteColumn(),
        rich.TextColumn("cost {task.fields[cost]}"),
        rich.TextColumn("{task.fields[speed]}"),
        rich.TextColumn("{task.fields[left]}"),
    )
    with rich.Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=iterations, cost="-", speed="", left="")
        scale, before, last = 0, (0, 0.0), (0, 0.0)  # iterations and seconds, up to this scale and so far

        def show(progress: "Progress") -> None:
            nonlocal scale, before, last
            if progress.scale != scale:
                scale, before = progress.scale, last
            last = progress.iteration, progress.seconds
            # Over the whole scale, since a GPU tells of several iterations at once.
            spent = progress.seconds - before[1]
            pace = f"{(progress.iteration - before[0]) / spent:.1f} it/s" if spent > 0 else ""
            where = f"{progress.size[1]}x{progress.size[0]}"
            bars.update(
                task,
                description=where if progress.scales == 1 else f"scale {progress.scale}/{progress.scales} {where}",
                completed=progress.iteration,
                cost=f"{progress.costs.total:.4g}",
                speed=pace,
                left=f"{_clock(progress.remaining)} left",
            )

        yield show


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
