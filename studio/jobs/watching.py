"""Those who watch: what each is told, and how little is held for one that is slow."""

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Frame:
    """A picture of a run on its way, as a WebP file."""

    iteration: int
    content: bytes


class Watcher:
    """One live connection: lines that wait to be sent, and that a newer frame is there.

    Frames themselves are not held: the newest is the run's, and shared by all who watch.
    """

    def __init__(self, most: int) -> None:
        self._lines: deque[str] = deque()
        self._most = most
        self._news = asyncio.Event()

    def tell(self, line: str) -> None:
        """Where too many wait, all are dropped for one that says to look anew."""
        if len(self._lines) >= self._most:
            self._lines.clear()
            self._lines.append(json.dumps({"event": "behind"}))
        self._lines.append(line)
        self._news.set()

    def wake(self) -> None:
        self._news.set()

    async def news(self) -> list[str]:
        """The lines that wait, once there is anything new."""
        await self._news.wait()
        self._news.clear()
        lines = list(self._lines)
        self._lines.clear()
        return lines


class Audience:
    """All who watch one thing."""

    def __init__(self) -> None:
        self.watchers: set[Watcher] = set()

    def tell(self, event: Mapping[str, Any]) -> None:
        if self.watchers:
            line = json.dumps(event)
            for watcher in self.watchers:
                watcher.tell(line)

    def wake(self) -> None:
        for watcher in self.watchers:
            watcher.wake()
