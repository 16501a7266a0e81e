"""A run in the server's memory: its record, what it has said since it began, and who watches it."""

import contextlib
import io
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ...engine.imaging.files import ImageError, write_whole
from ..limits import Limits
from . import shelf
from .child import Child
from .history import Frames, History
from .record import Change, Detail, Has, Record, Summary, shown_state
from .watching import Audience, Frame, Watcher

THUMBNAIL = 360
"""Pixels of a thumbnail's longer side."""


class Job:
    """What is known of one run; only what is painted at present has more in memory than its record."""

    def __init__(self, record: Record, folder: Path, limits: Limits) -> None:
        self.record, self.folder = record, folder
        self._limits = limits
        self.audience = Audience()
        self.child: Child | None = None
        self.frame: Frame | None = None
        self.remaining: float | None = None
        self.is_removed = False
        self.code: int | None = None
        """With which its last child ended."""
        self.said_done: Mapping[str, Any] | None = None
        self._history: History | None = None
        self._frames: Frames | None = None

    # ---- while it is painted

    def begin(self, child: Child) -> None:
        self.child, self.said_done = child, None
        self._history = History.read(self.folder / shelf.EVENTS, self._limits.points)
        self._frames = Frames(self.folder / shelf.FRAMES, self._limits.frames)
        self.record = replace(self.record, state="running", began=self.record.began or time.time(), error=None)

    def end(self) -> None:
        self.child = self._history = self._frames = self.remaining = None
        self.left()

    def left(self) -> None:
        """The last frame is held for as long as somebody may still want it."""
        if self.child is None and not self.audience.watchers:
            self.frame = None

    def progress(self, event: Mapping[str, Any]) -> None:
        """Takes note of iterations that are done."""
        assert self._history is not None
        numbers: dict[str, Any] = {
            name: _whole(event.get(name)) for name in ("iteration", "iterations", "scale", "scales")
        }
        self.record = replace(self.record, size=_size(event.get("size")) or self.record.size, **numbers)
        remaining = event.get("remaining")
        self.remaining = float(remaining) if isinstance(remaining, int | float) else None
        for costs in event.get("costs") or ():
            if isinstance(costs, dict) and type(costs.get("iteration")) is int:
                self._history.add(costs | {"scale": numbers["scale"]})

    def began(self, event: Mapping[str, Any]) -> None:
        self.record = replace(self.record, size=_size(event.get("size")) or self.record.size)
        write_whole(self.folder / shelf.BEGUN, json.dumps(event).encode())

    def keep_frame(self, iteration: int) -> Frame | None:
        """The frame that is newest, kept; None where it can't be read or is too large. For another thread."""
        frames = self._frames
        if frames is None:
            return None
        try:
            kept = frames.keep(self.folder / shelf.FRAME, iteration)
            if kept.stat().st_size > self._limits.frame_bytes:
                return None
            return Frame(iteration, kept.read_bytes())
        except OSError:
            return None

    def changed(self, iteration: int, changes: Mapping[str, Any]) -> None:
        listed = (*self.record.changes, Change(iteration, dict(changes)))
        self.record = replace(self.record, changes=listed[-self._limits.changes :])

    # ---- what is told of it

    def summary(self) -> Summary:
        record = self.record
        there = {name: (self.folder / name).exists() for name in _FILES.values()}
        return Summary(
            **{name: getattr(record, name) for name in _TOLD},
            state=shown_state(record),
            remaining=self.remaining,
            has=Has(**{name: there[file] for name, file in _FILES.items()}),
        )

    def detail(self) -> Detail:
        record = self.record
        history = self._history or History.read(self.folder / shelf.EVENTS, self._limits.points)
        frames = self._frames or Frames(self.folder / shelf.FRAMES, self._limits.frames)
        return Detail(
            **vars(self.summary()),
            **{name: getattr(record, name) for name in _TOLD_OF_ONE},
            begun=self._begun(),
            history=tuple(dict(point) for point in history.points),
            frames=tuple(frames.iterations),
        )

    def recipe(self) -> str | None:
        """What its picture says of its making; None where there is no picture yet. For another thread."""
        from ...engine.imaging.files import read_recipe
        from ...engine.reporting import recipe

        try:
            return read_recipe(self.folder / shelf.RESULT).get(recipe.KEY)
        except ImageError:
            return None

    def shrink(self) -> None:
        """A thumbnail of the newest frame. For another thread."""
        from PIL import Image

        with contextlib.suppress(OSError, ValueError, ImageError):
            frame = Image.open(self.folder / shelf.FRAME, formats=["WEBP"])
            frame.thumbnail((THUMBNAIL, THUMBNAIL))
            small = io.BytesIO()
            frame.save(small, "WEBP", quality=80)
            write_whole(self.folder / shelf.THUMBNAIL, small.getvalue())

    def frame_file(self, iteration: int) -> Path:
        return Frames(self.folder / shelf.FRAMES, self._limits.frames).path(iteration)

    def tell_state(self) -> None:
        self.audience.tell({"event": "state", "run": asdict(self.summary())})

    def tell_state_to(self, watcher: Watcher) -> None:
        watcher.tell(json.dumps({"event": "state", "run": asdict(self.summary())}))

    def _begun(self) -> dict[str, Any] | None:
        try:
            said = json.loads((self.folder / shelf.BEGUN).read_bytes())
        except (OSError, ValueError, ImageError):
            return None
        return said if isinstance(said, dict) else None


_COUNTED = ("iteration", "iterations", "scale", "scales")
_FILES = {"frame": shelf.FRAME, "picture": shelf.RESULT, "report": shelf.REPORT, "animation": shelf.ANIMATION}
_TOLD_OF_ONE = (
    "settings", "styles", "style_masks", "style_regions", "content_mask", "like", "began", "ended", "changes",
)  # fmt: skip
_TOLD = ("id", "name", "created", "error", "size", "iteration", "iterations", "scale", "scales")


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _size(value: Any) -> tuple[int, int] | None:
    if isinstance(value, list) and len(value) == 2 and all(type(side) is int for side in value):
        return value[0], value[1]
    return None
