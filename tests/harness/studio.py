"""A studio whose runs are painted by nobody: `fake_child.py` says what a run says."""

import asyncio
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from nstgpu.cli.run import run as run_command
from nstgpu.studio.jobs.shelf import Shelf
from nstgpu.studio.jobs.studio import Studio
from nstgpu.studio.limits import Limits
from nstgpu.studio.program import program
from nstgpu.studio.settings import Program
from nstgpu.studio.web.app import application
from nstgpu.studio.web.guard import Access

MARK = {"X-Nstgpu": "1"}
"""The header of requests that change anything."""
FAKE = (sys.executable, str(Path(__file__).parents[1] / "studio" / "fake_child.py"))
SERVER = Path(__file__).parents[1] / "studio" / "fake_server.py"
LIMITS, LOCAL = Limits(), Access()


def fake_program() -> Program:
    """`nstgpu run` as the studio knows it, but for what starts it."""
    return replace(program(run_command), command=FAKE)


def png(size: tuple[int, int] = (40, 30), mode: str = "RGB", kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file."""
    encoded = io.BytesIO()
    Image.new(mode, size, 128 if mode == "L" else (90, 60, 30)).save(encoded, kind, **options)
    return encoded.getvalue()


@asynccontextmanager
async def opened(
    folder: Path, limits: Limits = LIMITS, access: Access = LOCAL, devices: tuple[str, ...] = ("auto",)
) -> AsyncIterator[tuple[httpx.AsyncClient, Studio]]:
    """A client of an application in this process, and its studio."""
    shelf = Shelf(folder)
    studio = Studio(shelf, fake_program(), limits, devices, say=lambda line: pytest.fail(line))
    app = application(studio, access, devices)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    try:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8642", headers=MARK) as client,
        ):
            yield client, studio
    finally:
        shelf.close()


async def begun(client: httpx.AsyncClient, **settings: Any) -> str:
    """A run of two small pictures; its ID."""
    files = {"content": ("a.png", png()), "style": ("b.png", png((35, 25)))}
    answer = await client.post("/api/runs", files=files, data={"settings": json.dumps(settings), "name": "small"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def state_of(client: httpx.AsyncClient, run: str) -> dict[str, Any]:
    answer = await client.get(f"/api/runs/{run}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def until(what: Callable[[], Awaitable[Any]], seconds: float = 15.0) -> Any:
    """Waits until what is asked for is so; returns it."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not (found := await what()):
        assert loop.time() < end, "waited in vain"
        await asyncio.sleep(0.02)
    return found


async def ended(client: httpx.AsyncClient, run: str, *states: str) -> dict[str, Any]:
    """The run, once it is in one of these states."""

    async def look() -> Any:
        found = await state_of(client, run)
        return found if found["state"] in (states or ("done", "stopped", "failed")) else None

    return dict(await until(look))


@contextmanager
def served(folder: Path, limits: Mapping[str, Any] | None = None) -> Iterator["Served"]:
    """A server in a process of its own, on loopback; killed in the end."""
    places = os.pathsep.join([str(Path(__file__).parents[1]), *(path or os.getcwd() for path in sys.path)])
    process = subprocess.Popen(
        [sys.executable, str(SERVER), str(folder), json.dumps(limits or {})],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": places},
    )
    assert process.stdout is not None
    try:
        said: list[str] = []
        while not (line := process.stdout.readline().strip()).isdecimal():
            assert line, said  # it has ended
            said.append(line)
        port = line
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=MARK, timeout=30) as client:
            yield Served(process, int(port), client, said)
        process.kill()
        assert "Traceback" not in process.stdout.read()  # nor would its terminal be flooded
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Served:
    """A server's process, its port, and a client of it."""

    process: "subprocess.Popen[str]"
    port: int
    client: httpx.Client
    said: list[str]
    """Before it listened."""

    def begin(self, **settings: Any) -> str:
        files = {"content": ("a.png", png()), "style": ("b.png", png((35, 25)))}
        answer = self.client.post("/api/runs", files=files, data={"settings": json.dumps(settings)})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def state(self, run: str) -> dict[str, Any]:
        return dict(self.client.get(f"/api/runs/{run}").json())

    def until(self, run: str, what: Callable[[dict[str, Any]], bool], seconds: float = 30.0) -> dict[str, Any]:
        """The run, once it is as `what` wants it."""
        end = time.monotonic() + seconds
        while not what(found := self.state(run)):
            assert time.monotonic() < end, found
            time.sleep(0.02)
        return found
