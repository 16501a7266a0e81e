"""The files that a run's options name: checksummed, and named as its recipe names them."""

import os
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from .settings import Settings, split_weight

SUMS = "_sha256"
"""Behind the name of a setting that names files: their SHA-256, in the same order, "" where there is none."""
INIT_WORDS = ("content", "style", "gray", "noise")
STANDARD_INPUT = "-"
PICTURES = ("content", "styles", "style_masks", "style_regions", "content_mask", "init")
"""The settings that name pictures."""
_NO_FILE = {"style_masks": ("none",), "style_regions": ("none",), "init": INIT_WORDS}

AnySettings = TypeVar("AnySettings", bound=Settings)
Rename = Callable[[str, int, str], str]
"""From a setting, a number among its files and a path to another path."""


def renamed(settings: AnySettings, rename: Rename) -> AnySettings:
    """The settings with every picture's path changed; words that stand for none are left alone."""

    def one(name: str, number: int, text: str) -> str:
        return text if text in _NO_FILE.get(name, ()) else rename(name, number, text)

    changed: dict[str, Any] = {}
    for name in PICTURES:
        value = getattr(settings, name)
        if name == "styles":
            parts = [split_weight(text) for text in value]
            changed[name] = tuple(
                _joined(one(name, number, path), weight) for number, (path, weight) in enumerate(parts)
            )
        elif isinstance(value, tuple):
            changed[name] = tuple(one(name, number, text) for number, text in enumerate(value))
        elif value:
            changed[name] = one(name, 0, value)
    return replace(settings, **changed)


def _joined(path: str, weight: float) -> str:
    return f"{path}={weight!r}" if weight != 1 or "=" in path else path


def checksums(settings: Settings, of: Callable[[Path], str] | None = None) -> dict[str, list[str]]:
    """SHA-256 (hex) of every file and of what comes out of pipes, by setting and in its order; "" for what is none.

    of: how the checksum of a file is found, where some are known.
    """
    sums: dict[str, list[str]] = {}

    def add(name: str, number: int, path: str) -> str:
        listed = sums.setdefault(name, [])
        listed += [""] * (number - len(listed))
        listed.append((of or checksum)(Path(path)))
        return path

    renamed(settings, add)
    return sums


def checksum(path: Path) -> str:
    import hashlib

    from ..engine.imaging.files import ImageError, content_of

    if is_piped(str(path)):
        return hashlib.sha256(content_of(path)).hexdigest()
    if not path.is_file():
        return ""  # as reading it will say
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def is_piped(path: str) -> bool:
    """Whether a picture comes out of standard input or a pipe, which gives it once."""
    return path == STANDARD_INPUT or (os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path))


def place(path: str) -> str:
    """A file that need not be there yet, so that names of one place are equal, also where letters have no case."""
    return path if path == STANDARD_INPUT else folded(os.path.realpath(path))


def folded(name: str) -> str:
    """A name as file systems compare it that know no case, and spell letters with accents in one way."""
    return unicodedata.normalize("NFC", name).casefold()


def named_for(settings: AnySettings, folder: Path | None) -> AnySettings:
    """The settings as a recipe has them: files by name alone or, with the picture's folder, by the path from there."""

    from ..engine.reporting.recipe import spelled

    def name(setting: str, number: int, path: str) -> str:
        del setting, number
        if is_piped(path):
            return STANDARD_INPUT
        if folder is None:
            return spelled(Path(path).name)
        try:
            return spelled(Path(os.path.relpath(path, folder)).as_posix())
        except ValueError:  # on another drive
            return spelled(Path(path).name)

    named = renamed(settings, name)
    weights = settings.weights
    return named if weights is None or not is_file_spec(weights) else replace(named, weights=name("", 0, weights))


def is_file_spec(weights: str) -> bool:
    """Whether `--weights` names a file, rather than weights that nstgpu knows."""
    from ..weights.official.catalogue import official_named
    from ..weights.official.store import BUNDLED

    return weights != BUNDLED and official_named(weights) is None and not weights.startswith("random:")
