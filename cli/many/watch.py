"""How far a batch is, and what came of it: one bar or a line now and then for all pictures, and a table at the end."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...batch.tasks import Outcome, Task
from ..terminal.messages import printable, say
from ..terminal.progress import BAR, PACE, clock, on_terminal, pulse

if TYPE_CHECKING:
    from ...batch.report import Summary

MOST_ROWS = 40
"""Of the table; of a longer batch it has what has failed."""


@dataclass(eq=False)
class Watch:
    """How much of a batch's work is done, and how long the rest will take at the pace so far.

    Work is pixels times iterations (`Task.work`), since pictures may differ in size. Safe in several threads.
    """

    tasks: Sequence[Task]
    now: Callable[[], float] = time.monotonic
    done: int = 0
    failed: int = 0
    _shares: dict[int, float] = field(default_factory=dict)
    """Of each task's work that is done, by number."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._began = self.now()
        self._work = {task.number: task.work for task in self.tasks}
        self._all = sum(self._work.values()) or 1.0

    def saw(self, task: Task, share: float) -> None:
        with self._lock:
            self._shares[task.number] = share

    def ended(self, outcome: Outcome) -> None:
        with self._lock:
            self._shares[outcome.task.number] = 1.0
            self.done += 1
            self.failed += outcome.state == "failed"

    @property
    def share(self) -> float:
        """Of all work, from 0 to 1."""
        with self._lock:
            return sum(self._work[number] * share for number, share in self._shares.items()) / self._all

    @property
    def left(self) -> str:
        """ "3:20 left"; "" before anything is known."""
        share = self.share
        return f"{clock((self.now() - self._began) * (1 - share) / share)} left" if share > 0 else ""

    @property
    def count(self) -> str:
        return f"{self.done}/{len(self.tasks)}" + (f", {self.failed} failed" if self.failed else "")


@contextmanager
def shown(watch: Watch, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A function that shows how far it is, with the name of what is under way; what goes with its terminal is lost."""
    if quiet:
        yield lambda _: None
    elif on_terminal():
        with _bar(watch) as show:
            yield show
    else:
        due = pulse()

        def line(name: str) -> None:
            if due():
                say(", ".join(filter(None, (watch.count.replace("/", " of "), name, watch.left))))

        yield line


@contextmanager
def _bar(watch: Watch) -> Iterator[Callable[[str], None]]:
    from rich import progress as rich
    from rich.console import Console
    from rich.table import Column

    class Lasting(Console):
        def on_broken_pipe(self) -> None:  # which would end the process
            self.quiet = True

    console = Lasting(stderr=True)

    def text(name: str) -> rich.TextColumn:
        return rich.TextColumn(f"{{task.fields[{name}]}}", table_column=Column(no_wrap=True), markup=False)

    wide = console.width >= BAR
    columns = (text("count"), *([rich.BarColumn(bar_width=None)] if wide else []), text("name"), text("left"))
    with suppress(OSError, ValueError), rich.Progress(*columns, console=console) as bars:
        bar = bars.add_task("", total=1.0, count=watch.count, name="", left="")

        def show(name: str) -> None:
            with suppress(OSError, ValueError):
                shown = cut(printable(name), console.width // 3) if console.width >= PACE else ""
                bars.update(bar, completed=watch.share, count=watch.count, name=shown, left=watch.left)

        yield show


def cut(text: str, width: int) -> str:
    """The end of a text, where names differ, in so many columns."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def table(summary: "Summary") -> Iterator[str]:
    """Lines on what came of the pictures, in as many columns as the terminal has."""
    outcomes = summary.outcomes
    if len(outcomes) > MOST_ROWS:
        outcomes = [outcome for outcome in outcomes if outcome.state == "failed"][:MOST_ROWS]
    rows = [(outcome.task.options.output, outcome.state, _what(outcome)) for outcome in outcomes]
    if not rows:
        return
    columns = max(40, shutil.get_terminal_size().columns)
    longest = max(len(printable(name)) for name, *_ in rows)
    width = min(longest, columns // 2)
    for name, state, what in rows:
        yield f"{cut(printable(name), width):<{width}}  {state:<7}  {printable(what)}".rstrip()


def _what(outcome: Outcome) -> str:
    if outcome.state == "failed":
        tried = f" (tried {outcome.attempts} times)" if outcome.attempts > 1 else ""
        return outcome.reason + tried
    if outcome.state == "skipped" or outcome.shape is None:
        return "there already"
    size = f"{outcome.shape[1]}x{outcome.shape[0]}"
    cost = f"cost {outcome.costs[0]:.4g} -> {outcome.costs[1]:.4g}" if outcome.costs else ""
    return "  ".join(filter(None, (f"{size:>9}", f"{outcome.seconds:6.1f} s", cost)))
