"""What is asked of a run while it goes on: stop, pause, go on, and changes, each from any thread."""

import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

MORE_SCALE: Mapping[str, Any] = {"more_scale": True}
"""The change that adds a scale, √2 as large as the last one, whatever that is by then."""
MOST_WAITING = 64
"""Changes that wait for their turn."""


class Requests:
    """The run looks here after every iteration; whoever wants something of it says so by these methods."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._changes: deque[Mapping[str, Any]] = deque()
        self._paused = False
        self._stopped: str | None = None

    # ---- said by others, in any thread --------------------------------------------------------------------------
    def change(self, values: Mapping[str, Any]) -> bool:
        """Wants these settings from the next iteration on; whether there was room for it."""
        with self._news:
            if len(self._changes) >= MOST_WAITING:
                return False
            self._changes.append(values)
            self._news.notify_all()
            return True

    def pause(self, paused: bool) -> None:
        """No iterations from now on, or iterations again."""
        with self._news:
            self._paused = paused
            self._news.notify_all()

    def stop(self) -> None:
        """Ends the run here; its picture is kept, and its recipe says so."""
        self._stop("stop")

    def leave(self) -> None:
        """Ends the run as a signal does: whoever wanted it is gone, and it may be gone on with."""
        self._stop("leave")

    def _stop(self, how: str) -> None:
        with self._news:
            self._stopped = self._stopped or how
            self._news.notify_all()

    # ---- looked at by the run ------------------------------------------------------------------------------------
    @property
    def any(self) -> bool:
        """Whether the run is to do anything but its next iteration."""
        return self._paused or self._stopped is not None or bool(self._changes)

    @property
    def paused(self) -> bool:
        """Whether there are to be no iterations, and nothing has ended the run."""
        return self._paused and self._stopped is None

    @property
    def stopped(self) -> bool:
        """Whether the run is to end here and be kept."""
        return self._stopped == "stop"

    @property
    def left(self) -> bool:
        """Whether the run is to end here, to be gone on with."""
        return self._stopped == "leave"

    def next_change(self) -> Mapping[str, Any] | None:
        """The change that has waited longest, which waits no more; None where there is none."""
        with self._news:
            return self._changes.popleft() if self._changes else None

    def wait(self, seconds: float) -> None:
        """Returns once something else is asked for, or after so many seconds."""
        with self._news:
            self._news.wait(seconds)
