"""One picture of a batch to be made, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ..runs.settings import Options, iterations_of, split_weight

State: TypeAlias = Literal["painted", "skipped", "failed"]


@dataclass(frozen=True)
class Task:
    """One picture to be made: a run's options, `output` among them."""

    number: int
    """Its place in the batch, from 0."""
    options: Options
    size: int
    """Long side of the picture in pixels, as far as the content's file could be read."""

    @property
    def output(self) -> Path:
        return Path(self.options.output)

    @property
    def styles(self) -> tuple[str, ...]:
        """Their paths, without weights."""
        return tuple(split_weight(text)[0] for text in self.options.styles)

    @property
    def work(self) -> float:
        """What it takes, in pixels times iterations, by which times are told."""
        from ..engine.errors import SettingsError
        from ..engine.optimizers.scales import MIN_SIZE, plan_scales

        options, iterations = self.options, iterations_of(self.options.iterations)
        try:
            scales = plan_scales(
                self.size, min_size=options.min_size or MIN_SIZE, count=options.scales, iterations=iterations
            )
        except SettingsError:  # as painting it will say
            return float(self.size**2)
        return float(sum(scale.iterations * scale.long_side**2 for scale in scales))


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a task."""

    task: Task
    state: State
    """Skipped is what was there already, with the same recipe."""
    reason: str = ""
    """Why it failed, in one line."""
    attempts: int = 0
    seconds: float = 0.0
    """That its last attempt took, from the decoded content to the result."""
    shape: tuple[int, int] | None = None
    """(H, W) of the picture."""
    costs: tuple[float, float] | None = None
    """At the first and at the last iteration."""
    thumbnail: bytes | None = None
    """A small JPEG of it."""


OnProgress: TypeAlias = Callable[[Task, float], object]
"""Told of a task under way, and of the share of its work that is done; returning False ends the batch."""
Stopped: TypeAlias = Callable[[], bool]
"""Whether somebody has asked for the end."""


def one_line(error: BaseException) -> str:
    """What an error says, for a report; what is no error of this program's own with the name of its type."""
    from ..engine.errors import ImageError, NonFiniteCostError, SettingsError
    from ..kernels.errors import DeviceError
    from ..weights import WeightsError

    text = " ".join(str(error).split())
    if isinstance(error, ImageError | SettingsError | NonFiniteCostError | DeviceError | WeightsError | OSError):
        return text or type(error).__name__
    if isinstance(error, MemoryError):
        return f"out of memory ({text or 'no details'}); use a smaller size"
    return f"unexpected {type(error).__name__}: {text}"
