"""The pictures of a batch, one after the other in this process.

While one is painted the next is read and the last is written, each in a thread of its own. What pictures share is read
once (`kept`). A picture has the bytes, and the recipe, that `nstgpu run` would give it.
"""

import io
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runs.files import checksum, checksums
from ...runs.recipes import recipe_of
from ...runs.requests import Requests
from ...runs.steered import SteeredRun
from ...runs.transfer import taken, transfer_of
from ..kept import Kept
from ..tasks import OnProgress, Outcome, Stopped, Task, one_line

if TYPE_CHECKING:
    from ...engine.imaging.picture import Picture
    from ...engine.optimizers.coarse_to_fine import Progress
    from ...engine.transfer import Result

AHEAD = 2
"""Tasks in hand that are not painted yet: the next one, and the one after that, which is read meanwhile."""
THUMBNAIL = 240
"""Long side in pixels of the small pictures in a report."""


@dataclass(frozen=True, eq=False)
class Read:
    """What of a task can be read while another one is painted."""

    content: "Picture"
    sums: Mapping[str, Sequence[str]]


@dataclass(frozen=True, eq=False)
class Painted:
    """A picture that is yet to be written."""

    result: "Result"
    seconds: float


def read(task: Task, kept: Kept) -> Read:
    """Raises ImageError."""
    from ...engine.imaging import files as images

    content = Path(task.options.content)
    sums = checksums(task.options, lambda path: checksum(path) if path == content else kept.checksum(path))
    return Read(images.read(content), sums)


def paint(task: Task, given: Read, kept: Kept, on_progress: OnProgress | None, stopped: Stopped) -> Painted:
    """Paints one picture, unless it is stopped: then the result is `interrupted`.

    Raises what `StyleTransfer` does, and whatever `on_progress` raises.
    """
    from ...engine.imaging import files as images
    from ...engine.reporting import recipe

    began = time.perf_counter()
    network = kept.network(task.options)
    styles, opened = kept.styles(task.options), kept.opened(task.options)
    make = partial(transfer_of, content=given.content, network=network, opened=opened)
    transfer = make(task.options, styles=styles)
    images.check_size(task.output, transfer.shape[:2])
    options = taken(task.options, transfer)
    raised: list[Exception] = []
    requests = Requests()

    def on_iteration(progress: "Progress") -> None:
        try:
            whole = progress.seconds + progress.remaining
            share = progress.seconds / whole if whole > 0 else 0.0
            if on_progress is not None and on_progress(task, share) is False:
                requests.leave()
        except Exception as error:  # the caller's, and not this picture's
            raised.append(error)
            requests.leave()

    result = SteeredRun(options, transfer, make).run(on_iteration, lambda: stopped() or None, requests)
    if raised:
        raise CallbackError(raised[0])
    result = replace(result, recipe={**result.recipe, recipe.KEY: recipe_of(options, given.sums)})
    return Painted(result, time.perf_counter() - began)


def write(task: Task, painted: Painted, attempts: int) -> Outcome:
    """Writes a picture whole or not at all; raises ImageError."""
    result, options = painted.result, task.options
    result.save(task.output, depth=options.depth, quality=options.quality)  # type: ignore[arg-type]
    costs = (result.history[0].total, result.history[-1].total) if result.history else None
    height, width = result.image.shape[:2]
    small = thumbnail(result.image)
    return Outcome(task, "painted", "", attempts, painted.seconds, (height, width), costs, small)


def thumbnail(pixels: Any) -> bytes:
    """A JPEG of a picture (H, W, 3) in [0, 1], `THUMBNAIL` pixels long."""
    from ...engine.imaging import files as images

    encoded = io.BytesIO()
    images.preview(pixels, THUMBNAIL).save(encoded, "JPEG", quality=85)
    return encoded.getvalue()


class CallbackError(Exception):
    """What a callback raised: it ends the batch, and no picture has failed by it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Line:
    """Tasks on their way through reading, painting and writing, two or three at a time; for one thread.

    `add` tasks, one ahead of the one that is painted; each `step` paints one and tells what is known by then.
    """

    def __init__(self, kept: Kept, on_progress: OnProgress | None, stopped: Stopped) -> None:
        self._kept, self._on_progress, self._stopped = kept, on_progress, stopped
        self._waiting: deque[tuple[Task, int, Future[Read]]] = deque()
        self._writing: deque[tuple[Task, int, Future[Outcome]]] = deque()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="nstgpu-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="nstgpu-write")
        self.ended = False
        """Whether it was stopped; then what was painted by then is written, and nothing else is painted."""

    @property
    def waiting(self) -> int:
        """Tasks that are yet to be painted."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._writing

    def add(self, task: Task, attempt: int) -> None:
        """One more task, whose files are read from now on."""
        self._waiting.append((task, attempt, self._reader.submit(read, task, self._kept)))

    def step(self) -> Iterator[Outcome]:
        """Paints the next task, if any waits, and yields what is known by then; else waits for what is written."""
        try:
            if self._waiting and not self._stopped():
                yield from self._paint_next()
            self.ended |= self._stopped()
            yield from self._written(all_of_them=self.ended or not self._waiting)
        except KeyboardInterrupt:
            self.ended = True
            yield from self._written(all_of_them=True)

    def close(self) -> None:
        """Waits for what is written, and lets go of the threads."""
        self._reader.shutdown(cancel_futures=True)
        self._writer.shutdown()

    def _paint_next(self) -> Iterator[Outcome]:
        task, attempt, reading = self._waiting.popleft()
        try:
            painted = paint(task, reading.result(), self._kept, self._on_progress, self._stopped)
        except CallbackError as error:
            raise error.error from None
        except Exception as error:
            yield Outcome(task, "failed", one_line(error), attempt)
            return
        if painted.result.interrupted:
            self.ended = True
        else:
            self._writing.append((task, attempt, self._writer.submit(write, task, painted, attempt)))

    def _written(self, *, all_of_them: bool) -> Iterator[Outcome]:
        """What is written by now: all, or all but what has just been painted."""
        while self._writing and (all_of_them or len(self._writing) > 1 or self._writing[0][2].done()):
            task, attempt, outcome = self._writing.popleft()
            try:
                yield outcome.result()
            except Exception as error:
                yield Outcome(task, "failed", one_line(error), attempt)


def paint_all(
    tasks: Sequence[Task],
    kept: Kept,
    *,
    retry: int = 0,
    on_progress: OnProgress | None = None,
    stopped: Stopped = lambda: False,
) -> Iterator[Outcome]:
    """Paints and writes every task, and yields what came of each as soon as it is known.

    A task that fails is tried again `retry` times, after all others, and never ends the rest. Ctrl-C, or `stopped`,
    ends the batch: the picture under way is given up, and of tasks that were not done nothing is yielded.
    """
    pending = deque((task, 1) for task in tasks)
    line = Line(kept, on_progress, stopped)
    try:
        while (pending or not line.idle) and not line.ended:
            while pending and line.waiting < AHEAD:
                line.add(*pending.popleft())
            for outcome in line.step():
                if outcome.state == "failed" and outcome.attempts <= retry:
                    pending.append((outcome.task, outcome.attempts + 1))
                else:
                    yield outcome
    finally:
        line.close()
