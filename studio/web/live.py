"""The live connection: what a run says, as it says it, and its newest frame whenever a client has seen the last.

A client that is slow gets fewer frames, and none waits here for it: the frame that is sent is the newest there is.
"""

import asyncio
import json
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from ..jobs.job import Job
from ..jobs.studio import Studio
from ..jobs.watching import Watcher


class LiveConnections:
    """All live connections of a server."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._count = 0

    async def connect(self, websocket: WebSocket) -> None:
        """/api/live, with ?run=ID for one run, else for the list of all."""
        limits, run = self._studio.limits, websocket.query_params.get("run")
        job = None if run is None else self._studio.jobs.get(run)
        if run is not None and job is None:
            await websocket.close(1008, "there is no such run")
            return
        if self._count >= limits.watchers:
            await websocket.close(1013, f"{limits.watchers} are watching, as many as may")
            return
        self._count += 1
        watcher = Watcher(limits.pending_lines)
        audience = self._studio.audience if job is None else job.audience
        try:
            with suppress(WebSocketDisconnect):
                await websocket.accept()
                audience.watchers.add(watcher)
                await self._talk(websocket, watcher, job)
        finally:
            audience.watchers.discard(watcher)
            self._count -= 1
            if job is not None:
                job.left()

    async def _talk(self, websocket: WebSocket, watcher: Watcher, job: Job | None) -> None:
        seen = _Seen(watcher)
        if job is None:
            watcher.tell(json.dumps(self._studio.list_event()))
        else:
            job.tell_state_to(watcher)
            if job.child is not None and job.frame is None:
                job.child.tell({"frame": True})
        tasks = [
            asyncio.create_task(self._send(websocket, watcher, job, seen)),
            asyncio.create_task(_receive(websocket, seen)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(WebSocketDisconnect, RuntimeError):  # of one that has left
            await websocket.close()

    async def _send(self, websocket: WebSocket, watcher: Watcher, job: Job | None, seen: "_Seen") -> None:
        sent = None
        while True:
            for line in await watcher.news():
                await websocket.send_text(line)
            frame = None if job is None else job.frame
            if frame is None or frame is sent or seen.is_waited_for:
                continue
            seen.is_waited_for = True
            sent = frame
            await websocket.send_text(json.dumps({"event": "frame", "iteration": frame.iteration}))
            await websocket.send_bytes(frame.content)


class _Seen:
    """Whether a frame is on its way that the client has not said to have seen."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self.is_waited_for = False

    def frame(self) -> None:
        self.is_waited_for = False
        self._watcher.wake()


async def _receive(websocket: WebSocket, seen: _Seen) -> None:
    """Hears that frames were seen; a client that says anything else is left."""
    with suppress(WebSocketDisconnect, KeyError, ValueError, RecursionError):
        while True:
            said = json.loads(await websocket.receive_text())
            if not isinstance(said, dict) or type(said.get("seen")) is not int:
                return
            seen.frame()
