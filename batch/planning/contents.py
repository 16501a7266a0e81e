"""Files, folders and patterns to the pictures that they stand for, in one order on every machine."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".avif", ".heic", ".heif"})
"""Of what is taken for a picture where only a folder or a pattern is named."""


def pictures_of(given: Sequence[str], leave_out: Iterable[str | Path] = ()) -> list[str]:
    """The pictures that these files, folders (not those within) and patterns (`**` goes deeper) name, each once.

    leave_out: files, and folders whose files, no folder and no pattern stands for: the styles, and where the batch
    writes. Hidden files neither. What is named by itself is taken whatever it is: a file that is not there fails as a
    picture. Raises SettingsError for what names none.
    """
    from ...engine.errors import SettingsError

    hidden = {os.path.realpath(path) for path in leave_out}
    found: dict[str, str] = {}
    for text in given:
        listed = list(_listed(text, hidden))
        if not listed:
            raise SettingsError(f"{text} has no pictures; name files, folders with pictures in them, or patterns")
        for path in listed:
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def _listed(text: str, hidden: set[str]) -> Iterator[str]:
    if os.path.isdir(text):
        names = sorted(os.listdir(text))
        yield from _pictures((os.path.join(text, name) for name in names), hidden)
    elif os.path.lexists(text) or not glob.has_magic(text):
        yield text
    else:
        yield from _pictures(sorted(glob.glob(text, recursive=True)), hidden)


def _pictures(paths: Iterable[str], hidden: set[str]) -> Iterator[str]:
    for path in paths:
        real = os.path.realpath(path)
        shown = not os.path.basename(path).startswith(".") and not hidden & {real, os.path.dirname(real)}
        if shown and os.path.splitext(path)[1].lower() in SUFFIXES and os.path.isfile(path):
            yield path
