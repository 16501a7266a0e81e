"""What clients send: JSON and pictures, taken piece by piece, within limits of size and time.

Pictures go into a staged folder under names that are made here; what a client calls them is not looked at.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import python_multipart as multipart
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

from ..limits import Limits
from .refusals import Refused

_TEXTS = ("settings", "name", "like")
_NUMBERED = re.compile(r"style_(mask|region)_(\d)")
_DRAINED_SECONDS = 5.0


@dataclass
class Upload:
    """What one request brought: files of a folder by name, and texts."""

    pictures: list[str] = field(default_factory=list)
    """Names in the folder: content, style-1, style-1-mask, ..."""
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def styles(self) -> int:
        return sum(re.fullmatch(r"style-\d+", name) is not None for name in self.pictures)


async def json_of(request: Request, limits: Limits) -> dict[str, Any]:
    """A request's JSON object. Raises Refused."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "send JSON, with the header Content-Type: application/json")
    content = b"".join([piece async for piece in _pieces(request, limits.text_bytes, limits)])
    try:
        read = json.loads(content)
    except (ValueError, RecursionError):
        raise Refused(400, "this is no JSON; send one object") from None
    if not isinstance(read, dict):
        raise Refused(400, "this is JSON, but no object; send one")
    return read


async def upload_of(request: Request, folder: Path, limits: Limits) -> Upload:
    """A multipart request's pictures, written into a folder, and its texts. Raises Refused."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary or len(boundary) > 200:
        raise Refused(415, "send pictures as multipart/form-data, or JSON")
    parts = _Parts(folder, limits)
    try:
        parser = multipart.MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
        async for piece in _pieces(request, limits.request_bytes, limits):
            parser.write(piece)
        parser.finalize()
    except FormParserError:
        raise Refused(400, "this upload is no multipart/form-data as it should be") from None
    except Refused as refused:
        if refused.status == 413:
            await _drain(request, limits)
        raise
    except OSError as error:
        raise Refused(507, f"the upload could not be written: {error.strerror or error}") from error
    finally:
        parts.close()
    if not parts.is_whole:
        raise Refused(400, "the upload ended before its end; send it again")
    return parts.upload


async def _pieces(request: Request, most: int, limits: Limits) -> AsyncIterator[bytes]:
    """A body as it comes. Raises Refused for one that is too large, too slow, or broken off."""
    told = request.headers.get("content-length", "0")
    if told.isdecimal() and int(told) > most:
        await _drain(request, limits)
        raise Refused(413, f"this request has {int(told):,} bytes; at most {most:,} are taken")
    clock = asyncio.get_running_loop().time
    began, total = clock(), 0
    stream = request.stream()
    while True:
        try:
            piece = await asyncio.wait_for(anext(stream, None), limits.silence_seconds)
        except asyncio.TimeoutError:
            raise Refused(408, f"nothing came for {limits.silence_seconds:g} s; send it again") from None
        except ClientDisconnect:
            raise Refused(400, "the upload was broken off") from None
        if piece is None:
            return
        total += len(piece)
        if total > most:
            await _drain(request, limits)
            raise Refused(413, f"this request has more than the {most:,} bytes that are taken")
        late = clock() - began - limits.silence_seconds
        if late > 0 and total < late * limits.bytes_per_second:
            raise Refused(408, f"fewer than {limits.bytes_per_second} bytes a second came; send it again")
        yield piece


async def _drain(request: Request, limits: Limits) -> None:
    """Reads on for a while, so that a browser that still sends reads the answer instead of a broken connection."""

    async def rest() -> None:
        left = 2 * limits.request_bytes
        async for piece in request.stream():
            left -= len(piece)
            if left < 0:
                return

    try:
        await asyncio.wait_for(rest(), _DRAINED_SECONDS)
    except (asyncio.TimeoutError, ClientDisconnect, RuntimeError):  # RuntimeError: read to its end already
        return


class _Parts:
    """What the parser of multipart/form-data calls, piece by piece."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self.upload, self.is_whole = Upload(), False
        self._header, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._file: IO[bytes] | None = None
        self._name, self._text, self._written = "", bytearray(), 0

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin, "on_part_data": self._data, "on_part_end": self._end,
            "on_header_field": self._header_name, "on_header_value": self._header_value,
            "on_header_end": self._header_end, "on_headers_finished": self._named, "on_end": self._whole,
        }  # fmt: skip

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self._disposition, self._name, self._written = b"", "", 0
        self._header.clear()
        self._value.clear()
        self._text.clear()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        if len(self._value) > 4096:
            raise Refused(400, "a part of this upload has a header that is too long")

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _named(self) -> None:
        _, options = parse_options_header(self._disposition)
        part = options.get(b"name", b"").decode(errors="replace")
        if part in _TEXTS:
            self._name = part
            return
        self._name = name = self._picture(part)
        if name in self.upload.pictures:
            raise Refused(400, f"this upload has {part} twice")
        self.upload.pictures.append(name)
        self._file = open(self._folder / name, "xb")  # noqa: SIM115  (closed with the part)

    def _picture(self, part: str) -> str:
        """The name that a part's picture gets in the folder."""
        if part == "style":
            number = self.upload.styles + 1
            if number > self._limits.styles:
                raise Refused(413, f"this upload has more than the {self._limits.styles} styles that are taken")
            return f"style-{number}"
        if found := _NUMBERED.fullmatch(part):
            return f"style-{int(found[2]) + 1}-{found[1]}"
        known = {"content": "content", "content_mask": "content-mask"}
        if part not in known:
            raise Refused(400, f"this upload has a part {part[:40]!r}; there are content, style, masks, settings, name")
        return known[part]

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._written += end - start
        if self._file is None:
            if self._written > self._limits.text_bytes:
                raise Refused(413, f"{self._name} is longer than the {self._limits.text_bytes:,} bytes that are taken")
            self._text += data[start:end]
            return
        if self._written > self._limits.upload_bytes:
            most = self._limits.upload_bytes / 2**20
            raise Refused(413, f"{self._name} is larger than the {most:g} MiB that are taken; shrink it first")
        self._file.write(data[start:end])

    def _end(self) -> None:
        if self._file is not None:
            self.close()
            if not self._written:
                raise Refused(422, f"{self._name} is empty; send a picture")
            return
        try:
            self.upload.texts[self._name] = self._text.decode()
        except UnicodeDecodeError:
            raise Refused(400, f"{self._name} is no UTF-8 text") from None

    def _whole(self) -> None:
        self.is_whole = True
