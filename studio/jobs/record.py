"""What is kept of a run in its folder, `job.json`, and what a client is told of it."""

import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Literal

RUN_ID = re.compile(r"\d{4}-\d{2}-\d{2}-\d{6}-[0-9a-f]{6}")
"""Made here, never by a client: the time of day, and a random end."""
State = Literal["queued", "running", "done", "stopped", "failed"]
ShownState = Literal["queued", "running", "paused", "done", "stopped", "failed"]


def new_id() -> str:
    return f"{time.strftime('%Y-%m-%d-%H%M%S')}-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class Change:
    """What was changed while a run was painted, and after which iteration in all."""

    iteration: int
    changes: dict[str, Any]


@dataclass(frozen=True)
class Record:
    """A run as its folder keeps it. Times are seconds since 1970."""

    id: str
    created: float
    state: State = "queued"
    position: int = 0
    """Among those that are queued."""
    name: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    """As they were given, with `style_weights` besides."""
    styles: int = 1
    style_masks: tuple[bool, ...] = ()
    """Which styles have one; empty for none."""
    style_regions: tuple[bool, ...] = ()
    content_mask: bool = False
    like: str | None = None
    """The run whose settings it has."""
    paused: bool = False
    began: float | None = None
    ended: float | None = None
    error: str | None = None
    """Why it failed, in one line."""
    size: tuple[int, int] | None = None
    """Width and height of what is painted at present."""
    iteration: int = 0
    iterations: int = 0
    scale: int = 0
    scales: int = 0
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Has:
    """Which of its files a run has."""

    frame: bool
    picture: bool
    report: bool
    animation: bool


@dataclass(frozen=True)
class Summary:
    """A run in the list. Sizes are width and height in pixels, times seconds."""

    id: str
    name: str
    state: ShownState
    created: float
    error: str | None
    size: tuple[int, int] | None
    iteration: int
    iterations: int
    scale: int
    scales: int
    remaining: float | None
    has: Has


@dataclass(frozen=True)
class Detail(Summary):
    """All that is told of one run."""

    settings: dict[str, Any]
    styles: int
    style_masks: tuple[bool, ...]
    style_regions: tuple[bool, ...]
    content_mask: bool
    like: str | None
    began: float | None
    ended: float | None
    begun: dict[str, Any] | None
    """What the run said as it began."""
    changes: tuple[Change, ...]
    history: tuple[dict[str, Any], ...]
    """Progress, thinned."""
    frames: tuple[int, ...]
    """Iterations of which a frame is kept."""


def shown_state(record: Record) -> ShownState:
    return "paused" if record.state == "running" and record.paused else record.state
