"""The studio itself: all runs, the queue, and on each device one run at a time.

A run's state is written down before anything is done about it, so that a server that is killed at any moment goes on
where it was: what was painted is gone on with from its checkpoint, and the queue keeps its order.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..limits import Limits
from ..settings import Program
from . import shelf
from .child import Child, command
from .job import Job
from .record import Record, State, new_id
from .shelf import Shelf
from .watching import Audience

LIST_SECONDS = 0.5
"""Between two lists that are told to those who watch all runs."""


class Conflict(ValueError):
    """What a run, as it is at present, cannot do; one line."""


class Full(ValueError):
    """The queue has no place left; one line."""


class Studio:
    """All runs of a folder. Everything here happens in one event loop."""

    def __init__(
        self,
        runs: Shelf,
        program: Program,
        limits: Limits,
        devices: Sequence[str] = ("auto",),
        say: Callable[[str], None] = print,
    ) -> None:
        self.shelf, self.program, self.limits = runs, program, limits
        self.audience = Audience()
        self.jobs: dict[str, Job] = {}
        self._say = say
        self._free = list(devices)
        self._painting: dict[str, asyncio.Task[None]] = {}
        self._listing: asyncio.Task[None] | None = None
        self._is_news = self._closing = False
        for record in runs.records(say):
            self.jobs[record.id] = Job(record, runs.place(record.id), limits)

    # ---- from the first moment to the last

    def open(self) -> None:
        """Goes on with what was painted when the last server ended, then with the queue."""
        interrupted = [job for job in self.jobs.values() if job.record.state == "running"]
        for job in interrupted:
            job.record = replace(job.record, state="queued", position=-1)
        self._fill()

    async def close(self) -> None:
        """Ends what is painted, with its checkpoint; it stays down as running, for the next server."""
        self._closing = True
        running = [job.child for job in self.jobs.values() if job.child is not None]
        await asyncio.gather(*(child.end(self.limits.ending_seconds) for child in running))
        await asyncio.gather(*self._painting.values(), return_exceptions=True)
        if self._listing is not None:
            self._listing.cancel()

    # ---- what clients see

    def job(self, run: str) -> Job:
        """Raises KeyError."""
        return self.jobs[run]

    def in_order(self) -> list[Job]:
        """What is painted, then the queue, then what has ended, newest first."""
        rank = {"running": 0, "queued": 1}

        def key(job: Job) -> tuple[int, float, str]:
            record = job.record
            place = rank.get(record.state, 2)
            return place, {0: record.created, 1: record.position}.get(place, -record.created), record.id

        return sorted(self.jobs.values(), key=key)

    def list_event(self) -> dict[str, Any]:
        return {"event": "list", "runs": [asdict(job.summary()) for job in self.in_order()]}

    # ---- what clients do

    def check_room(self) -> None:
        """Raises Full."""
        waiting = sum(job.record.state in ("queued", "running") for job in self.jobs.values())
        if waiting >= self.limits.queue:
            raise Full(f"{waiting} runs are waiting, as many as may; delete one, or wait until one has ended")

    def add(self, staged: Path, **known: Any) -> Job:
        """Puts a run, whose inputs are in a staged folder, at the end of the queue. Raises Full."""
        self.check_room()
        last = max((job.record.position for job in self._queue()), default=-1)
        record = Record(id=new_id(), created=time.time(), position=last + 1, **known)
        self.shelf.begin(record, staged)
        job = self.jobs[record.id] = Job(record, self.shelf.place(record.id), self.limits)
        self._fill()
        self._tell(job)
        return job

    def change(self, job: Job, changes: Mapping[str, Any]) -> None:
        """Tells a run that is painted what is to be otherwise from the next iteration on. Raises Conflict."""
        if job.child is None:
            raise Conflict(f"this run is {job.record.state}; settings can be changed while it is painted")
        job.child.tell({"change": dict(changes)})

    def set(self, job: Job, settings: dict[str, Any]) -> None:
        """Other settings for a run that waits. Raises Conflict."""
        if job.record.state != "queued":
            raise Conflict(f"this run is {job.record.state}; only one that waits can begin with other settings")
        self._note(job, settings=settings)

    def pause(self, job: Job, wanted: bool) -> None:
        if job.record.state != "running":
            raise Conflict(f"this run is {job.record.state}; only one that is painted can pause")
        if job.child is not None:
            job.child.tell({"pause": wanted})
        self._note(job, paused=wanted)

    def stop(self, job: Job) -> None:
        """Ends a run and keeps what there is; one that waits is taken out of the queue."""
        if job.record.state == "queued":
            self._note(job, state="stopped")
        elif job.child is not None:
            job.child.tell({"stop": True})
        else:
            raise Conflict(f"this run is {job.record.state} already")

    def add_scale(self, job: Job) -> None:
        if job.child is None:
            raise Conflict(f"this run is {job.record.state}; a scale can be added while it is painted")
        job.child.tell({"more_scale": True})

    def rename(self, job: Job, name: str) -> None:
        self._note(job, name=" ".join(name.split())[: self.limits.name_characters])

    def move(self, job: Job, position: int) -> None:
        """To this place in the queue, counted from zero. Raises Conflict."""
        if job.record.state != "queued":
            raise Conflict(f"this run is {job.record.state}; only one that waits has a place in the queue")
        others = [other for other in self._queue() if other is not job]
        others.insert(max(0, min(position, len(others))), job)
        for place, one in enumerate(others):
            if one.record.position != place:
                self._note(one, position=place)

    def resume(self, job: Job) -> None:
        """Puts a run that has stopped or failed at the end of the queue, to go on from its checkpoint."""
        if job.record.state not in ("stopped", "failed"):
            raise Conflict(f"this run is {job.record.state}; only one that was stopped or has failed can go on")
        self.check_room()
        last = max((other.record.position for other in self._queue()), default=-1)
        self._note(job, state="queued", position=last + 1, error=None, ended=None, paused=False)
        self._fill()

    async def remove(self, job: Job) -> None:
        """Ends a run and removes all of it."""
        job.is_removed = True
        task = self._painting.get(job.record.id)
        if job.child is not None:
            job.child.kill()
        if task is not None:
            await asyncio.wait([task])
        if self.jobs.pop(job.record.id, None) is not None:
            await asyncio.to_thread(self.shelf.remove, job.record.id)
        job.audience.tell({"event": "removed", "id": job.record.id})
        self._list_soon()

    # ---- the queue

    def _queue(self) -> list[Job]:
        return [job for job in self.in_order() if job.record.state == "queued"]

    def _fill(self) -> None:
        """Starts what waits, as far as devices are free."""
        for job in self._queue():
            if not self._free or self._closing:
                return
            if job.is_removed or job.record.id in self._painting:
                continue
            device = self._free.pop(0)
            self._note(job, state="running")
            self._painting[job.record.id] = asyncio.create_task(self._paint(job, device))

    async def _paint(self, job: Job, device: str) -> None:
        try:
            await self._painted(job, device)
        except Exception as error:  # of one run; the others go on
            self._end(job, "failed", f"{' '.join(str(error).split()) or type(error).__name__}")
        finally:
            self._painting.pop(job.record.id, None)
            self._free.append(device)
            job.end()
            if not job.is_removed:
                self._tell(job)
            self._fill()

    async def _painted(self, job: Job, device: str) -> None:
        words, has_terminal = command(self.program, job.record, job.folder, device), self.program.given is not None
        child = await Child.start(words, job.folder, self.limits, has_terminal=has_terminal)
        job.begin(child)
        if job.is_removed or self._closing:
            child.kill()
        if job.record.paused:
            child.tell({"pause": True})
        async for event in child.events():
            await self._take(job, event)
        job.code = code = await child.ended()
        if self._closing or job.is_removed:
            return
        if job.said_done is not None:
            self._end(job, "stopped" if job.said_done.get("interrupted") else "done", None)
        else:
            self._end(job, "failed", _why(code, child.last_words))

    def _end(self, job: Job, state: State, error: str | None) -> None:
        if not job.is_removed:
            self._note(job, state=state, error=error, ended=time.time(), paused=False)

    async def _take(self, job: Job, event: dict[str, Any]) -> None:
        """Acts on what a child says, and tells those who watch."""
        what = event["event"]
        if what == "frame":
            iteration = event.get("iteration")
            frame = None
            if type(iteration) is int and iteration >= 0:
                frame = await asyncio.to_thread(job.keep_frame, iteration)
            if frame is not None:
                job.frame = frame
                job.audience.wake()
                self._list_soon()
            return
        if what == "progress":
            if type(event.get("iteration")) is not int:
                return
            job.progress(event)
            self._list_soon()
        elif what == "begun":
            job.began(event)
            self._note(job)
        elif what == "changed" and isinstance(event.get("changes"), dict):
            iteration = event.get("iteration")
            job.changed(iteration if type(iteration) is int else job.record.iteration, event["changes"])
            self._note(job)
        elif what in ("paused", "resumed"):
            self._note(job, paused=what == "paused")
        elif what == "done":
            job.said_done = event
        job.audience.tell(event)

    # ---- written down, and told

    def _note(self, job: Job, **changed: Any) -> None:
        job.record = replace(job.record, **changed)
        self.shelf.write(job.record)
        self._tell(job)

    def _tell(self, job: Job) -> None:
        job.tell_state()
        self._list_soon()

    def _list_soon(self) -> None:
        """Tells those who watch all runs, at most every LIST_SECONDS."""
        self._is_news = True
        if self.audience.watchers and (self._listing is None or self._listing.done()):
            self._listing = asyncio.create_task(self._list())

    async def _list(self) -> None:
        while self._is_news:
            self._is_news = False
            self.audience.tell(self.list_event())
            await asyncio.sleep(LIST_SECONDS)


def _why(code: int, last_words: str) -> str:
    """One line on why a child has ended without a picture."""
    if code < 0:
        return (
            f"the run was killed (signal {-code}), perhaps for want of memory; "
            "resume goes on from its last checkpoint, or try a smaller size"
        )
    return last_words.removeprefix("nstgpu: ") or f"the run ended with code {code}; its {shelf.LOG} may say why"
