"""What commands say: a line at a time, and nothing of a file's own reaches the terminal but letters.

File names, recipes, weights and the errors that quote them may hold escape codes: they are shown, not obeyed.
"""

import contextlib
import logging
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

MOST = 2000
"""Characters of a line: what is longer quotes a file that wants to fill the terminal."""
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format (among them all that turns the writing), surrogates, breaks
_JOINERS = "\u200c\u200d"  # of Persian and of emoji; they move nothing


def printable(text: str) -> str:
    r"""The text on one line, with every character that a terminal would act on spelt out, as in `\x1b` or `\u202e`.

    A byte of a file name that is no Unicode is spelt as a byte, `\xe9`; what is beyond `MOST` characters is cut off.
    """
    if text.isascii() and text.isprintable() and len(text) <= MOST:
        return text
    shown = "".join(_spelt(character) if _acts(character) else character for character in text[: MOST + 1])
    return shown if len(shown) <= MOST else shown[: MOST - 1] + "…"


def _acts(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN and character not in _JOINERS


def _spelt(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that it could not decode
        code -= 0xDC00
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def say(text: str) -> None:
    """One line for the user on standard error; above a progress bar, where one is up, since that replaces it.

    Nothing is lost with a terminal that has gone: the line is, and the work goes on.
    """
    if sys.stderr is None:  # closed before the start, and print() would take standard output instead
        return
    with contextlib.suppress(OSError, ValueError):  # ValueError: closed
        print(printable(text), file=sys.stderr, flush=True)


class Lines(logging.Handler):
    """What the library logs, a line each, such as "compiling kernels (first run only)"."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def is_for_users(category: type[Warning]) -> bool:
    """Whether a warning says something of the run; what libraries will do otherwise one day concerns their callers."""
    return not issubclass(category, DeprecationWarning | PendingDeprecationWarning)


@contextmanager
def notes(quiet: bool) -> Iterator[None]:
    """Shows the library's warnings as one-line notes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    if not quiet:
        for message in dict.fromkeys(str(warning.message) for warning in caught if is_for_users(warning.category)):
            say(f"note: {message}")
