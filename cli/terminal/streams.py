"""Standard output as it is found: it may know few characters, and its reader may leave."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO

READER_GONE = 141
"""Exit code where the reader of standard output has left, as in `| head`: what a shell sees of programs that SIGPIPE
ends."""


_closed = set[int]()
"""The numbers of the standard streams that were closed when the command began."""


def spell_what_they_lack() -> None:
    r"""Standard output and error spell what their encoding lacks, as in `\u221a`, and never fail over it.

    Where one is closed, nothing else may get its number: what libraries say on it would go into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            _closed.add(number)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
            with contextlib.suppress(OSError, ValueError):  # closed
                stream.reconfigure(errors="backslashreplace")


def flush_output() -> None:
    """Raises BrokenPipeError here, where it can be answered, and not when the interpreter ends."""
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def is_closed() -> bool:
    """Whether standard output was closed when the command began."""
    return 1 in _closed or sys.stdout is None


def why_no_picture() -> str:
    """Why standard output can't take a picture, as the end of a sentence; "" if it can."""
    if is_closed():
        return "is closed"
    return "is a terminal" if sys.stdout.isatty() else ""


@contextlib.contextmanager
def output_alone() -> Iterator[BinaryIO]:
    """Standard output for one file's bytes: what anything else prints within goes to standard error."""
    flush_output()
    kept = os.dup(1)
    with open(kept, "wb") as file:
        os.dup2(2, 1)
        try:
            yield file
        finally:
            with contextlib.suppress(OSError, ValueError):
                flush_output()
            os.dup2(kept, 1)
            with contextlib.suppress(OSError):  # what its reader did not take; that has been said
                file.close()


def nobody_reads() -> None:
    """Standard output leads nowhere from now on, so that nothing more can fail over it."""
    with contextlib.suppress(OSError, ValueError):  # not a file's
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def complain(line: str) -> None:
    """On standard error, red in a terminal; lost where there is none any more."""
    if sys.stderr is None:  # closed before the start
        return
    with contextlib.suppress(OSError, ValueError):
        print(f"\x1b[31m{line}\x1b[0m" if sys.stderr.isatty() else line, file=sys.stderr, flush=True)
