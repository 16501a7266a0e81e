"""Starts the processes that decode, a few at a time, and says in one line what they refuse."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..limits import Limits
from ..process import PYTHON, apart, environment

CAN_LIMIT = sys.platform != "win32"
"""Whether the system limits a process's memory."""
_COMMAND = (PYTHON, "-m", "nstgpu.studio.pictures.decode")


class Unreadable(ValueError):
    """A picture that is not taken; one line."""


class Decoders:
    """Decodes pictures in processes of their own."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._places = asyncio.Semaphore(limits.decoders)

    async def accept(self, folder: Path, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Makes NAME.png of every NAME in a folder; returns their sizes (W, H). Raises Unreadable."""
        answer = await self._ask(folder, {"names": list(names), "pixels": self._limits.pixels}, ", ".join(names))
        return {name: (int(size[0]), int(size[1])) for name, size in answer["sizes"].items()}

    async def convert(self, folder: Path, source: str, target: str, depth: int) -> None:
        """Writes a finished picture in the format that the target's suffix names. Raises Unreadable."""
        await self._ask(folder, {"source": source, "target": target, "depth": depth}, source)

    async def _ask(self, folder: Path, order: dict[str, Any], what: str) -> dict[str, Any]:
        limits = self._limits
        order = order | {"memory": limits.decode_memory, "seconds": limits.decode_seconds}
        async with self._places:
            process = await asyncio.create_subprocess_exec(
                *_COMMAND,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                cwd=folder,
                env=environment() | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                **apart(),
            )
            try:
                talk = process.communicate(json.dumps(order).encode())
                said, _ = await asyncio.wait_for(talk, 2 * limits.decode_seconds)
            except asyncio.TimeoutError:
                said = b""
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        try:
            answer = json.loads(said)
        except ValueError:
            answer = {"error": "memory"}
        if answer.get("error") == "memory":
            raise Unreadable(
                f"{what}: decoding took more than {limits.decode_memory / 2**30:.1f} GiB of memory or "
                f"{limits.decode_seconds} s; shrink the picture, or save it as another kind of file"
            )
        if "error" in answer:
            raise Unreadable(str(answer["error"]))
        return dict(answer)
