"""A run told so that it can be done again: the text that travels inside its picture."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from .files import SUMS, named_for
from .settings import Options, Settings

Sums = Mapping[str, Sequence[str]]
"""SHA-256 (hex) of the files that the settings name, by setting and in its order, as `files.checksums` has them."""


def recipe_of(options: Options, sums: Sums) -> str:
    """The recipe of a run whose options were all taken, as text; defaults included, since those may change."""
    from ..engine.reporting import recipe

    return recipe.dump(told(options, sums))


def told(options: Options, sums: Sums) -> dict[str, Any]:
    """What a recipe says: the settings and the checksums of the files that they name, in their order."""
    from .. import __version__
    from ..engine.reporting import recipe

    folder = Path(options.output).absolute().parent if options.relative_paths else None
    named = named_for(options, folder)
    values: dict[str, Any] = {recipe.VERSION_KEY: __version__}
    for field in fields(Settings):
        value = getattr(named, field.name)
        if value not in (None, ()):
            values[field.name] = list(value) if isinstance(value, tuple) else value
        if any(sums.get(field.name, ())):
            listed = list(sums[field.name])
            values[field.name + SUMS] = listed if isinstance(value, tuple) else listed[0]
    return values
