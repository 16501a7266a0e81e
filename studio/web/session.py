"""One server from its start to its end: its address, what it exposes, and how it is left."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Callable

import uvicorn

from ..jobs.shelf import Shelf
from ..jobs.studio import Studio
from ..limits import Limits
from ..pictures.decoders import CAN_LIMIT
from ..settings import Program
from .app import application
from .guard import Access
from .serving import listen, serve

__all__ = ["Session", "listen"]


class Session:
    """The studio of a folder, on a socket that listens already."""

    def __init__(
        self,
        runs: Shelf,
        program: Program,
        limits: Limits,
        devices: tuple[str, ...],
        host: str,
        listening: socket.socket,
        *,
        wants_token: bool,
        say: Callable[[str], None],
    ) -> None:
        self._runs, self._limits, self._devices, self._listening = runs, limits, devices, listening
        beyond = not Access(host).is_local
        self.access = Access(host, secrets.token_urlsafe(32) if wants_token or beyond else None)
        self.studio = Studio(runs, program, limits, devices, say)

    @property
    def address(self) -> str:
        """What to open; with the token, where there is one."""
        host, port = self.access.host, self._listening.getsockname()[1]
        if host in ("0.0.0.0", "::", ""):
            host = socket.gethostname()
        host = f"[{host}]" if ":" in host else host
        token = "" if self.access.token is None else f"?token={self.access.token}"
        return f"http://{host}:{port}/{token}"

    def exposure(self) -> list[str]:
        """What is worth saying of who can reach what, a line each."""
        lines = []
        if not self.access.is_local:
            lines.append(
                f"note: listening on {self.access.host}: other machines can reach this server, over HTTP that is not "
                "encrypted; whoever has the address below, with its token, sees all runs, begins and deletes them"
            )
        if not CAN_LIMIT:
            lines.append("note: this system does not limit the memory of what decodes uploaded pictures")
        return lines

    def run(self, shown: str | None = None, until: "Callable[[Studio], asyncio.Future[None]] | None" = None) -> None:
        """Serves until Ctrl-C or SIGTERM or, where `until` is given and signals are others', until that is done.

        shown: the part of the page to open in the browser; None for nothing.
        """

        def ready(server: uvicorn.Server) -> None:
            if shown is not None:
                _open(self.address + shown)
            if until is not None:
                until(self.studio).add_done_callback(lambda _: setattr(server, "should_exit", True))

        app = application(self.studio, self.access, self._devices)
        with contextlib.suppress(KeyboardInterrupt), self._listening:
            asyncio.run(serve(app, self._listening, self._limits, ready, hears_signals=until is None))
        self._runs.close()


def _open(address: str) -> None:
    """In the browser, by another thread: some take a while to say that there is none."""
    import threading
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
