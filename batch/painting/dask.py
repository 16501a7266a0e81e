"""The pictures of a batch on the machines of a Dask cluster, which schedules, retries and replaces what dies.

A task is known by the hash of all that decides its picture, so that one that is submitted again is the same one. Files
travel with the tasks: workers need nothing but nstgpu and the weights. What a style's targets are is a task of its own,
whose result all pictures in that style share. Pictures are sent back, or written by the workers: in a folder that they
see, or at an address that fsspec knows.

A cluster is for those who may run programs on its machines: connect to none that others may write to.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runs.files import checksums, renamed
from ...runs.recipes import told
from ...runs.settings import Options, method_of
from ...runs.transfer import transfer_of
from ..kept import Kept
from ..planning.existing import difference
from ..tasks import OnProgress, Outcome, Stopped, Task, one_line
from .paint import paint, read, thumbnail, write

if TYPE_CHECKING:
    from ...engine.costs.known_targets import KnownTargets

AHEAD = 4
"""Tasks that a cluster has in hand for each of its threads: enough to keep them busy, and few enough to hold."""
PATIENCE = 60.0
"""Seconds for which a scheduler that has gone is waited for."""


@dataclass(frozen=True, eq=False)
class Sent:
    """What comes back from a worker."""

    outcome: Outcome
    picture: bytes | None
    """The file; None where the worker has written it, or it has failed."""


Files = Mapping[str, bytes]
"""What lies in the files that a task names, by their paths."""


def paint_on_cluster(
    tasks: Sequence[Task],
    scheduler: str,
    kept: Kept,
    *,
    workers_write: str | None = None,
    retry: int = 0,
    on_progress: OnProgress | None = None,
    stopped: Stopped = lambda: False,
) -> Iterator[Outcome]:
    """As `paint.paint_all`, on the workers of a scheduler, "tcp://host:8786".

    workers_write: a folder or an address below which workers write the pictures by their names; None sends them back.
    Raises SettingsError where the scheduler does not answer, or dask is not installed.
    """
    cluster = Cluster(scheduler, kept, workers_write, retry)
    try:
        yield from cluster.outcomes([_alike(task, kept) for task in tasks], on_progress, stopped)
    finally:
        cluster.close()


class Cluster:
    """A connection to a scheduler, and what is in its hands."""

    def __init__(self, scheduler: str, kept: Kept, workers_write: str | None, retry: int) -> None:
        self._address, self._kept, self._workers_write, self._retry = scheduler, kept, workers_write, retry
        self._files: dict[str, bytes] = {}
        self._targets: dict[str, Any] = {}
        self._client: Any = _connected(scheduler)
        self._resources: dict[str, float] = {}
        self._threads = 1

    def outcomes(self, tasks: Sequence[Task], on_progress: OnProgress | None, stopped: Stopped) -> Iterator[Outcome]:
        from distributed import wait

        pending, under_way = deque(tasks), dict[Any, Task]()
        try:
            while (pending or under_way) and not stopped():
                self._look_at_workers()
                while pending and len(under_way) < AHEAD * self._threads:
                    task = pending.popleft()
                    try:
                        under_way[self._submitted(task)] = task
                    except OSError as error:  # a file of this machine
                        yield Outcome(task, "failed", one_line(error), 1)
                with suppress(Exception):  # what has become of each is looked at one by one
                    wait(list(under_way), timeout=1, return_when="FIRST_COMPLETED")
                for future in [future for future in under_way if future.done()]:
                    task = under_way.pop(future)
                    if (outcome := self._outcome(task, future)) is None:
                        pending.append(task)
                    elif on_progress is not None and on_progress(task, 1.0) is False:
                        return
                    else:
                        yield outcome
                if self._client.status == "closed":  # it has waited for a scheduler that has gone
                    pending.extend(under_way.values())
                    under_way.clear()
                    self._targets.clear()
                    self._client = _connected(self._address, PATIENCE)
        except KeyboardInterrupt:
            return
        finally:
            if self._client.status == "running":
                self._client.cancel(list(under_way))

    def close(self) -> None:
        self._client.close(timeout=5)

    def _look_at_workers(self) -> None:
        from inspect import signature

        # Newer versions tell of five unless they are asked for all.
        all_of_them = {"n_workers": -1} if "n_workers" in signature(self._client.scheduler_info).parameters else {}
        with suppress(Exception):  # a scheduler that has gone for a moment
            workers = self._client.scheduler_info(**all_of_them)["workers"].values()
            self._threads = max(1, sum(worker["nthreads"] for worker in workers))
            self._resources = {"GPU": 1} if any("GPU" in worker["resources"] for worker in workers) else {}

    def _submitted(self, task: Task) -> Any:
        resources = self._resources if task.options.device in ("auto", "cuda") else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large tasks: the scheduler keeps a picture until it is painted
            return self._client.submit(
                paint_there, task, self._files_of(task), self._targets_of(task, resources), self._workers_write,
                key=f"nstgpu-{key_of(task, self._kept)}", retries=self._retry, resources=resources, pure=True,
            )  # fmt: skip

    def _files_of(self, task: Task) -> Files:
        """The content's, which are read for it alone, and those that many share."""
        found: dict[str, bytes] = {}

        def look(name: str, _: int, path: str) -> str:
            if name == "content":
                found[path] = Path(path).read_bytes()
            else:
                if path not in self._files:
                    self._files[path] = Path(path).read_bytes()
                found[path] = self._files[path]
            return path

        renamed(task.options, look)
        return found

    def _targets_of(self, task: Task, resources: Mapping[str, float]) -> Any:
        """The future of what is measured of a task's styles; the same for all pictures in them."""
        alone = replace(task, number=0, options=replace(task.options, content=task.styles[0], output="style.png"))
        key = key_of(alone, self._kept, task.size)
        if key not in self._targets:
            self._targets[key] = self._client.submit(
                targets_there, alone, self._files_of(alone), key=f"nstgpu-style-{key}", resources=resources, pure=True
            )
        return self._targets[key]

    def _outcome(self, task: Task, future: Any) -> Outcome | None:
        """What has come of it; None where it is to be submitted again."""
        if future.status in ("cancelled", "lost"):
            return None
        if future.status == "error":
            return Outcome(task, "failed", one_line(future.exception()), self._retry + 1)
        try:
            sent: Sent = future.result(timeout=PATIENCE)
            if sent.picture is not None:
                from ...engine.imaging.codecs.whole_file import write_whole

                write_whole(task.output, sent.picture)
        except OSError as error:
            return Outcome(task, "failed", one_line(error), 1)
        except Exception:  # its worker, or the scheduler, went before it was fetched
            return None
        return replace(sent.outcome, task=task)


def key_of(task: Task, kept: Kept, *others: object) -> str:
    """SHA-256 (hex) of all that decides a picture: the settings, the files by their checksums, the weights, and what
    it is called."""
    values = told(task.options, checksums(task.options, kept.checksum))
    return hashlib.sha256(repr((values, task.output.name, task.size, others)).encode()).hexdigest()


def _alike(task: Task, kept: Kept) -> Task:
    """The task so that any worker comes to the same bytes: with one thread unless said otherwise, and these weights."""
    options = replace(task.options, weights_sha256=kept.network(task.options).checksum)
    if options.threads is None and options.device in ("auto", "cpu"):
        options = replace(options, threads=1)
    return replace(task, options=options)


def _connected(scheduler: str, patience: float = 10.0) -> Any:
    from ...engine.errors import SettingsError

    try:
        from distributed import Client
    except ImportError:
        raise SettingsError("--scheduler needs dask.distributed: pip install 'nstgpu[dask]'") from None
    until = time.monotonic() + patience
    while True:
        try:
            return Client(scheduler, timeout=5, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            if isinstance(error, ValueError) or time.monotonic() > until:
                raise SettingsError(
                    f"no scheduler answers at {scheduler} ({one_line(error)}); start it there"
                ) from error


# ---- on the workers -------------------------------------------------------------------------------------------------

_kept: Kept | None = None
_alone = threading.Lock()
"""A worker may have several threads; a device has one user at a time."""


def _here() -> Kept:
    global _kept
    _kept = _kept or Kept()
    return _kept


def paint_there(task: Task, files: Files, targets: KnownTargets, workers_write: str | None) -> Sent:
    """On a worker: paints a picture from what came with the task."""
    with _alone, tempfile.TemporaryDirectory(prefix="nstgpu-") as folder, _own_names(folder):
        kept, here = _here(), _unpacked(task, files, Path(folder))
        if workers_write is not None and (made := _made(here, kept, _address(workers_write, task))) is not None:
            return Sent(replace(made, task=task), None)
        kept.opened(here.options).targets.take_over(targets)
        painted = paint(here, read(here, Kept()), kept, None, lambda: False)
        outcome = replace(write(here, painted, 1), task=task)
        if workers_write is None:
            return Sent(outcome, here.output.read_bytes())
        _put(here.output, _address(workers_write, task))
        return Sent(outcome, None)


@contextmanager
def _own_names(folder: str) -> Iterator[None]:
    """What is said of pictures names them as their owner knows them."""
    from ...engine.errors import ImageError

    try:
        yield
    except ImageError as error:
        raise ImageError(re.sub(re.escape(folder) + r"/\w+/", "", str(error))) from None


def targets_there(task: Task, files: Files) -> KnownTargets:
    """On a worker: measures a task's styles at every size at which they are looked at, beside any content."""
    from ...engine.costs.known_targets import KnownTargets
    from ...engine.imaging import files as images

    with _alone, tempfile.TemporaryDirectory(prefix="nstgpu-") as folder:
        kept, here = _here(), _unpacked(task, files, Path(folder))
        options = replace(here.options, size=task.size, size_at_most=None, content_mask=None, style_masks=())
        opened = kept.opened(options)
        before, opened.targets = opened.targets, KnownTargets()
        try:
            style = images.read(options.content)
            transfer = transfer_of(options, style, kept.network(options), None, opened)
            for scale in transfer.method(**method_of(options)).scales:
                transfer.objective(transfer.size_at(scale.long_side))
            return opened.targets
        finally:
            opened.targets = before


def _unpacked(task: Task, files: Files, folder: Path) -> Task:
    """The task with its files in this folder, each by its own name."""

    def unpack(name: str, number: int, path: str) -> str:
        place = folder / f"{name}{number}" / Path(path).name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(files[path])
        return str(place)

    options: Options = renamed(task.options, unpack)
    return replace(task, options=replace(options, output=str(folder / "made" / task.output.name)))


def _address(base: str, task: Task) -> str:
    """Where a worker writes a picture; nothing in a name leads out of there."""
    return posixpath.join(base, *task.output.parts[-1:])


def _put(made: Path, address: str) -> None:
    """Writes a file whole or not at all."""
    if "://" not in address:
        from ...engine.imaging.codecs.whole_file import write_whole

        write_whole(Path(address), made.read_bytes())
        return
    import fsspec

    system, path = fsspec.core.url_to_fs(address)
    passing = f"{path}.{hashlib.sha256(made.read_bytes()).hexdigest()[:16]}.part"
    system.makedirs(posixpath.dirname(path), exist_ok=True)
    system.pipe_file(passing, made.read_bytes())
    system.mv(passing, path)


def _made(task: Task, kept: Kept, address: str) -> Outcome | None:
    """What lies there already, if it is this very picture."""
    from ...engine.imaging import files as images

    there = task.output.with_name("there" + task.output.suffix)
    there.parent.mkdir(exist_ok=True)
    try:
        if "://" in address:
            import fsspec

            system, path = fsspec.core.url_to_fs(address)
            there.write_bytes(system.cat_file(path))
        else:
            there.write_bytes(Path(address).read_bytes())
    except OSError:
        return None
    at = replace(task, options=replace(task.options, output=str(there)))
    if difference(at, kept.network(task.options)) is not None:
        return None
    pixels = images.read(there).pixels
    return Outcome(task, "skipped", shape=pixels.shape[:2], thumbnail=thumbnail(pixels))
