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

from ..errors import SettingsError
from ..imaging import files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KEY = "nstgpu recipe"
"""Under which the text stands among what a picture records of its making; see files.save."""

VERSION_KEY = "nstgpu"
"""In a recipe: the version that wrote it."""
# What recipes of earlier versions left out and pictures say beside them.
_BESIDE = {"weights": "weights", "weights_sha256": "weights sha256", "device": "device", "precision": "precision"}

Scalar: TypeAlias = bool | int | float | str
Value: TypeAlias = Scalar | list[Scalar] | dict[str, int | float]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

# A recipe comes from anywhere: one that a run has written stays far below all of these.
MOST_BYTES = 1 << 16
MOST_KEYS = 256
MOST_ITEMS = 256
MOST_CHARACTERS = 4096
MOST_DOTS = 64
LARGEST_INT = 1 << 64


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

    A recipe of an earlier version in a picture has "" under `VERSION_KEY`, and its weights, device and precision from
    what else the picture says of its making. Raises SettingsError, or ImageError for a picture that can't be read.
    """
    path = Path(path)
    others: dict[str, str] = {}
    if path.suffix.lower() == ".toml":
        try:
            with path.open("rb") as file:
                text = file.read(MOST_BYTES + 1).decode("utf-8-sig")  # with or without the mark that Windows puts first
        except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null character in the path
            reason = error.strerror if isinstance(error, OSError) else error
            raise SettingsError(f"cannot read {path}: {reason}; give a recipe in TOML, in UTF-8") from error
    else:
        others = files.read_recipe(path)
        text = others.get(KEY, "")
        if not text:
            raise SettingsError(
                f"there is no recipe in {path}; give a picture as nstgpu run wrote it (editing or sending one may drop "
                "the recipe), or a .toml file"
            )
    options = _parsed(text, path)
    if VERSION_KEY in others and VERSION_KEY not in options:  # which pictures have under the same name
        options[VERSION_KEY] = ""
        for name, key in _BESIDE.items():
            if key in others and (name != "weights_sha256" or options.get("weights", others["weights"])):
                options.setdefault(name, others[key][:MOST_CHARACTERS])
    return options


def _parsed(text: str, path: Path) -> dict[str, Value]:
    if len(text) > MOST_BYTES or len(text.encode(errors="replace")) > MOST_BYTES:
        raise SettingsError(f"the recipe in {path} has over {MOST_BYTES} bytes, which no run has written")
    # The parser's time grows with the square of a key's parts.
    if any(part.count(".") > MOST_DOTS for part in re.split(r"[=\n,]", text)):
        raise SettingsError(f"the recipe in {path} is nested too deeply; no option is")
    try:
        options = tomllib.loads(text)
        _check_bounds(options)
        dump(options)  # TOML has more than a recipe: what dump() wouldn't write is refused
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the recipe in {path} is not valid TOML ({error}); correct it there") from error
    except RecursionError:
        raise SettingsError(f"the recipe in {path} is nested too deeply; no option is") from None
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    except ValueError as error:  # an integer of more digits than Python reads
        raise SettingsError(f"the recipe in {path} is not valid TOML ({error}); correct it there") from error
    return options


def _check_bounds(options: Mapping[str, Any]) -> None:
    """Raises SettingsError for numbers and lengths that no option has."""
    if len(options) > MOST_KEYS:
        raise SettingsError(f"the recipe has {len(options)} options, which no run has")
    for name, value in options.items():
        items = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else [value]
        if len(name) > MOST_CHARACTERS or len(items) > MOST_ITEMS:
            raise SettingsError(f"the option {name[:40]} is too long")
        for item in items:
            if isinstance(item, str) and len(item) > MOST_CHARACTERS:
                raise SettingsError(f"the option {name} has a text of {len(item)} characters, which is too long")
            if isinstance(item, int) and abs(item) >= LARGEST_INT:
                raise SettingsError(f"the option {name} has a number beyond 64 bits")


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


def spelled(name: str) -> str:
    r"""A file's name as Unicode can hold it: a byte that is none is spelt `\xe9`."""
    return "".join(f"\\x{ord(c) & 0xFF:02x}" if 0xD800 <= ord(c) <= 0xDFFF else c for c in name)
