"""The Starlette application: the API, the live connection, and the page's files."""

import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from ..jobs.studio import Studio
from .api import Api
from .guard import Access, Guard
from .live import LiveConnections
from .refusals import Refused, answer_failure, answer_http, answer_refused

PAGE = Path(__file__).parents[1] / "page"


def application(studio: Studio, access: Access, devices: tuple[str, ...] = ("auto",)) -> Starlette:
    """What a server serves; the studio goes on and ends with it."""
    for kind, suffix in (("text/javascript", ".js"), ("text/css", ".css"), ("image/svg+xml", ".svg")):
        mimetypes.add_type(kind, suffix)  # whatever a system's own table says

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        studio.open()
        try:
            yield
        finally:
            await studio.close()

    api = Api(studio, devices)
    return Starlette(
        routes=[
            Route("/", _page),
            *(operation.route() for operation in api.operations()),
            WebSocketRoute("/api/live", LiveConnections(studio).connect),
            Mount("/static", StaticFiles(directory=PAGE, check_dir=False)),
        ],
        middleware=[Middleware(Guard, access=access, limits=studio.limits)],
        exception_handlers={Refused: answer_refused, HTTPException: answer_http, Exception: answer_failure},
        lifespan=lifespan,
    )


async def _page(request: Request) -> Response:
    """The page; all that it shows it asks the API for."""
    del request
    return FileResponse(PAGE / "index.html")
