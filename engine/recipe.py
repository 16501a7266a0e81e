"""The options of a run as TOML text that travels inside its picture, so that the run can be repeated from it.

A recipe maps option names to bools, ints, finite floats, strings, lists of those, and tables of a name to a number.
What the options mean, and what stands in for those left out, is the command line's.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from . import images
from .taps import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KEY = "nstgpu recipe"
"""Under which the text stands among what a picture records of its making; see images.save."""

Scalar: TypeAlias = bool | int | float | str
Value: TypeAlias = Scalar | list[Scalar] | dict[str, int | float]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def dump(options: Mapping[str, Any]) -> str:
    """The options as TOML, one a line in their order, which load() turns into equal values of the same types.

    Floats keep every bit; paths become strings, tuples lists; None, an option left alone, is left out. Raises
    SettingsError for NaN and infinities, names that aren't Unicode, and what a recipe can't hold.
    """
    lines = ["# nstgpu run --recipe FILE, with this file or the picture it was in, repeats this run"]
    for name, value in options.items():
        if value is not None:
            lines.append(f"{_key(name, name)} = {_value(name, value)}")
    return "\n".join(lines) + "\n"


def load(path: str | os.PathLike[str]) -> dict[str, Value]:
    """The options in a .toml file, or in a picture that a run has written.

    Raises SettingsError, or ImageError for a picture that can't be read.
    """
    path = Path(path)
    if path.suffix.lower() == ".toml":
        try:
            text = path.read_text(encoding="utf-8-sig")  # with or without the mark that Windows puts first
        except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null character in the path
            reason = error.strerror if isinstance(error, OSError) else error
            raise SettingsError(f"cannot read {path}: {reason}; give a recipe in TOML, in UTF-8") from error
    else:
        text = images.read_recipe(path).get(KEY, "")
        if not text:
            raise SettingsError(
                f"there is no recipe in {path}; give a picture as nstgpu run wrote it (editing or sending one may drop "
                "the recipe), or a .toml file"
            )
    try:
        options = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the recipe in {path} is not valid TOML ({error}); correct it there") from error
    try:
        dump(options)  # TOML has more than a recipe: what dump() wouldn't write is refused
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    return options


def _value(name: str, value: object) -> str:
    """The TOML of an option's value; `name` is for the message where it has none."""
    if isinstance(value, Mapping):
        if all(isinstance(number, int | float) and not isinstance(number, bool) for number in value.values()):
            pairs = (f"{_key(name, key)} = {_scalar(name, number)}" for key, number in value.items())
            return f"{{{', '.join(pairs)}}}"
        raise SettingsError(f"the option {name} is a table of more than numbers, which a recipe can't hold")
    if isinstance(value, list | tuple):
        return f"[{', '.join(_scalar(name, item) for item in value)}]"
    return _scalar(name, value)


def _scalar(name: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise SettingsError(f"the option {name} is {value}; a recipe holds finite numbers only")
        return float.__repr__(value)  # NumPy's own scalars spell theirs otherwise
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return _string(name, value)
    raise SettingsError(f"the option {name} is of type {type(value).__name__}, which a recipe can't hold")


def _key(name: str, key: object) -> str:
    if not isinstance(key, str):
        raise SettingsError(f"the option {name} has a name of type {type(key).__name__}; names are strings in a recipe")
    return key if _BARE_KEY.fullmatch(key) else _string(name, key)


def _string(name: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # how Python spells the bytes of a file name that isn't UTF-8
        raise SettingsError(
            f"the option {name} is {text!a}, which isn't Unicode and so fits in no recipe; rename the file"
        ) from error
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # all that TOML escapes and JSON doesn't
