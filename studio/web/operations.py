"""What can be asked for: one `Operation` a route, from which the routes and their OpenAPI description both come."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ... import __version__
from ..json_types import schema_of

Handler = Callable[[Request], Awaitable[Response]]
_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string", "description": "One line: what is wrong, and what to do."}},
    "required": ["error"],
}
_PARAMETERS = {"id": {"type": "string"}, "number": {"type": "integer", "minimum": 0}}


@dataclass(frozen=True)
class Operation:
    """One method of one address. The handler's docstring is its description."""

    method: str
    path: str
    handler: Handler
    answers: Any = None
    """The dataclass of the JSON that comes back; None where it is no JSON."""
    media: tuple[str, ...] = ("application/json",)
    """Of what comes back."""
    status: int = 200
    takes: Any = None
    """The dataclass of the JSON that is sent."""
    uploads: Mapping[str, Any] | None = None
    """Parts of multipart/form-data that may be sent instead: name -> schema."""
    query: Mapping[str, Sequence[str]] | None = None
    """Names of parameters after the ?, each with its choices."""

    def route(self) -> Route:
        return Route(self.path, self.handler, methods=[self.method], name=self.name)

    @property
    def name(self) -> str:
        return self.handler.__name__

    def described(self) -> dict[str, Any]:
        summary, _, rest = " ".join((self.handler.__doc__ or "").split()).partition(". ")
        parameters = [
            {"name": part, "in": "path", "required": True, "schema": _PARAMETERS[part]}
            for part in path_parts(self.path)
        ]
        for name, choices in (self.query or {}).items():
            schema = {"type": "string", "enum": list(choices)}
            parameters.append({"name": name, "in": "query", "required": False, "schema": schema})
        if self.method not in ("GET", "HEAD"):
            mark = {"type": "string", "enum": ["1"]}
            parameters.append({"name": "X-Nstgpu", "in": "header", "required": True, "schema": mark})
        schema = {"type": "string", "format": "binary"} if self.answers is None else schema_of(self.answers)
        found: dict[str, Any] = {"description": summary.rstrip(".")}
        if self.status != 204:
            found["content"] = {media: {"schema": schema} for media in self.media}
        operation: dict[str, Any] = {
            "operationId": self.name,
            "summary": summary.rstrip("."),
            "parameters": parameters,
            "responses": {
                str(self.status): found,
                "default": {"description": "An error", "content": {"application/json": {"schema": _ERROR}}},
            },
        }
        if rest:
            operation["description"] = rest
        body: dict[str, Any] = {}
        if self.takes is not None:
            body["application/json"] = {"schema": schema_of(self.takes)}
        if self.uploads is not None:
            body["multipart/form-data"] = {"schema": {"type": "object", "properties": dict(self.uploads)}}
        if body:
            operation["requestBody"] = {"required": True, "content": body}
        return operation


def path_parts(path: str) -> list[str]:
    """The names in an address: /api/runs/{id}/style/{number:int} has id and number."""
    return [part.strip("{}").partition(":")[0] for part in path.split("/") if part.startswith("{")]


def describe(operations: Sequence[Operation]) -> dict[str, Any]:
    """All of it, as OpenAPI 3.1."""
    paths: dict[str, Any] = {}
    for operation in operations:
        address = operation.path.replace(":int}", "}")
        paths.setdefault(address, {})[operation.method.lower()] = operation.described()
    return {
        "openapi": "3.1.0",
        "info": {"title": "nstgpu studio", "version": __version__, "description": _ABOUT},
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
        "paths": paths,
    }


_ABOUT = (
    "Runs of neural style transfer. /api/live is a websocket: with ?run=ID it says in JSON what a run says, and sends "
    'its newest frame as a WebP file after each frame event, once {"seen": iteration} has answered the one before; '
    "without, the list of runs whenever it changes. Beyond loopback every request needs the token, as Authorization: "
    "Bearer, or the cookie that /?token= sets."
)
