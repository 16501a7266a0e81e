"""What a client is told that asks for what cannot be: one line, and a status."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class Refused(Exception):
    """A request that is not answered as it would like; the message is one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def refusal(method: str, status: int, message: str) -> Response:
    """What is left of a body that was refused is not waited for."""
    headers = {} if method in ("GET", "HEAD") else {"connection": "close"}
    return JSONResponse({"error": message}, status, headers)


async def answer_refused(request: Request, error: Exception) -> Response:
    """Starlette's handler of `Refused`."""
    assert isinstance(error, Refused)
    return refusal(request.method, error.status, error.message)


async def answer_http(request: Request, error: Exception) -> Response:
    """Starlette's handler of its own errors: routes that are not there, methods that they have not."""
    status = int(getattr(error, "status_code", 500))
    what = {404: "there is nothing at this address", 405: f"this address knows no {request.method}"}
    return refusal(request.method, status, what.get(status, str(getattr(error, "detail", "this cannot be answered"))))


async def answer_failure(request: Request, error: Exception) -> Response:
    """Starlette's handler of all else, which is said on the server's side."""
    return refusal(
        request.method, 500, f"the server failed over this ({type(error).__name__}); its terminal may say more"
    )
