"""Downloads one file whose size and MD5 are known, over any connection: resumed, retried, and verified.

The file gets its name when it is whole and right, never before; until then it grows as `.part` beside it. Which file,
from where and to where is left to `store`.
"""

import http.client
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DownloadError
from .catalogue import OfficialFile, md5_of

TIMEOUT = 20.0
"""Seconds without a byte after which a connection is given up."""
PAUSES = (1.0, 2.0, 4.0)
"""Seconds before each new attempt; one more failure in a row is the end."""
WORTHWHILE = 1024**2
"""Bytes. An attempt that brought so many new ones starts the row anew: a poor line gets there, and an end is sure."""
PIECE = 64 * 1024
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class _BrokenOffError(Exception):
    """An attempt failed in a way that another may not."""


class _HopelessError(Exception):
    """An attempt failed in a way that every other would."""


def download(
    official: OfficialFile,
    target: Path,
    *,
    on_progress: Callable[[int], None] = lambda _: None,
    on_retry: Callable[[str, float], None] = lambda *_: None,
    timeout: float = TIMEOUT,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Puts `official` at `target`, going on from what an earlier attempt left in `target`.part.

    `on_progress` gets the bytes that are there, `on_retry` a reason and the seconds until the next attempt. Proxies are
    taken from the usual variables. Raises `DownloadError`; what arrived is kept, unless it was wrong.
    """
    part = target.with_name(f"{target.name}.part")
    if _size(part) > official.size:
        part.unlink()
    left_before = _size(part)
    try:
        _complete(official, part, on_progress, on_retry, timeout, sleep)
        if (md5 := md5_of(part)) != official.md5:
            part.unlink()
            if not left_before:
                raise _HopelessError(f"the bytes that came are not the file's: their MD5 is {md5}, not {official.md5}")
    except (_BrokenOffError, _HopelessError) as error:
        again = "; what came is kept, and the same command goes on from there"
        if not _size(part):
            part.unlink(missing_ok=True)
            again = ""
        raise DownloadError(
            f"{official.name} could not be fetched: {error}{again}; by hand: download {official.url} and save it as "
            f"{target}"
        ) from error
    if not part.exists():  # the part from before was another file's or damaged: once more, from nothing
        on_retry("what an earlier attempt had left was damaged", 0.0)
        download(official, target, on_progress=on_progress, on_retry=on_retry, timeout=timeout, sleep=sleep)
        return
    os.replace(part, target)


def _complete(
    official: OfficialFile,
    part: Path,
    on_progress: Callable[[int], None],
    on_retry: Callable[[str, float], None],
    timeout: float,
    sleep: Callable[[float], None],
) -> None:
    """Attempts until `part` has all its bytes, whichever they are."""
    opener = urllib.request.build_opener()  # a new one: `urlopen` keeps the proxies it first saw
    furthest, failures = _size(part), 0
    while _size(part) < official.size:
        try:
            _attempt(opener, official, part, on_progress, timeout)
        except _BrokenOffError as error:
            failures = 1 if _size(part) - furthest >= WORTHWHILE else failures + 1
            furthest = max(furthest, _size(part))
            if failures > len(PAUSES):
                raise
            pause = PAUSES[failures - 1]
            on_retry(str(error), pause)
            sleep(pause)


def _attempt(
    opener: urllib.request.OpenerDirector,
    official: OfficialFile,
    part: Path,
    on_progress: Callable[[int], None],
    timeout: float,
) -> None:
    """One request for the bytes that `part` lacks, appended as they come."""
    have = _size(part)
    request = urllib.request.Request(official.url, headers={"User-Agent": "nstgpu"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with _answer(opener, request, part, timeout) as response:
        _check_length(response, official.size, part)
        if response.status == 200:
            have = 0  # also where a range was asked for: the server sends everything
        with part.open("ab" if have else "wb") as stream:
            on_progress(have)
            while piece := _piece(response, timeout):
                have += len(piece)
                if have > official.size:
                    stream.truncate(0)
                    raise _HopelessError(f"the server sends more than the file's {official.size:,} bytes")
                stream.write(piece)
                on_progress(have)
    if have < official.size:
        raise _BrokenOffError(f"the connection ended after {have:,} of {official.size:,} bytes")


def _answer(
    opener: urllib.request.OpenerDirector, request: urllib.request.Request, part: Path, timeout: float
) -> Any:  # an http.client.HTTPResponse, which urllib types as Any
    try:
        return opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # it has no such range: the part is no beginning of what it has
            part.unlink()
            raise _BrokenOffError("the server has nothing from there on") from error
        kind = _BrokenOffError if error.code in TRANSIENT_STATUS else _HopelessError
        raise kind(f"the server answered {error.code}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        # A ValueError is about an address in a proxy variable. With no network names are not found, and waiting helps
        # little; in the middle of a file it may.
        hopeless = isinstance(reason, ssl.SSLCertVerificationError | ValueError) or (
            isinstance(reason, socket.gaierror) and not _size(part)
        )
        raise (_HopelessError if hopeless else _BrokenOffError)(_in_words(reason, timeout)) from error


def _check_length(response: Any, size: int, part: Path) -> None:
    """Refuses an answer that announces another length than the file's, before a byte of it is read."""
    announced = response.headers.get("Content-Length", "")
    if response.status == 206:
        spans = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if spans is None or int(spans[1]) != _size(part):
            part.unlink()
            raise _BrokenOffError("the server sent another range than was asked for")
        announced = spans[2]
    elif response.status != 200:
        raise _HopelessError(f"the server answered {response.status}")
    if announced.isdecimal() and int(announced) != size:
        raise _HopelessError(
            f"the server offers {int(announced):,} bytes where the file has {size:,} (a login page of the network?)"
        )


def _piece(response: Any, timeout: float) -> bytes:
    try:
        # read1 gives what is there; read would wait until the piece is full.
        return bytes(response.read1(PIECE))
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(_in_words(error, timeout)) from error


def _in_words(reason: object, timeout: float) -> str:
    if isinstance(reason, TimeoutError):
        return f"nothing came for {timeout:g} s"
    if isinstance(reason, socket.gaierror):
        return "the server's name was not found (no network?)"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    if isinstance(reason, http.client.HTTPException) and not isinstance(reason, OSError):
        return f"the answer is no proper HTTP ({type(reason).__name__})"
    # A proxy's own words may be in it, terminal codes and all.
    return "".join(character for character in str(reason)[:200] if character.isprintable()) or type(reason).__name__


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
