"""Lack of memory, told from damage: libraries that read files report both in the same words, or in none."""

import errno
import mmap

ENOUGH = 256 << 20
"""Bytes: with so many left, reading a picture or weights fails for another reason, or says what it lacked."""


def is_shortage(error: BaseException) -> bool:
    """Whether a failure to read comes of too little memory: it or a cause says so, or too little is left to tell."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM):
            return True
        cause = cause.__cause__ or cause.__context__
    try:
        mmap.mmap(-1, ENOUGH).close()  # untouched, so that it costs nothing
    except (MemoryError, OSError):
        return True
    return False
