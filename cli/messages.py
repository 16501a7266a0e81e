"""What commands say on standard error: a line at a time."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def say(text: str) -> None:
    """One line for the user; above a progress bar, where one is up, since that replaces `sys.stderr`."""
    print(text, file=sys.stderr, flush=True)


class Lines(logging.Handler):
    """What the library logs, a line each, such as "compiling kernels (first run only)"."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


@contextmanager
def notes(quiet: bool, but: type[Warning] | None = None) -> Iterator[None]:
    """Shows the library's warnings as one-line notes, `but` for those of one kind."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    if not quiet:
        shown = [warning for warning in caught if but is None or not issubclass(warning.category, but)]
        for message in dict.fromkeys(str(warning.message) for warning in shown):
            say(f"note: {message}")
