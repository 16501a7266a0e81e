"""The options of a run, of all the places where they are given."""

from pathlib import Path
from typing import Any

from ...runs.changes import NONE
from ...runs.settings import PRESETS, Options
from . import repeating
from .destinations import default_name, fresh, is_folder, saved_on_the_way


def options_of(given: dict[str, Any], recipe: str | None, presets: list[str], *, yes: bool) -> Options:
    """What was given on the command line, over a preset's, over the recipe's, over the defaults."""
    from ...engine.errors import SettingsError

    positional = given.pop("style", None)
    styles = ([positional] if positional else []) + list(given.pop("styles", None) or [])
    if styles:
        given["styles"] = styles
    if len(presets) > 1:
        raise SettingsError("--quick and --best are both given; choose one of them")
    for preset in presets:
        given = PRESETS[preset] | given
    values: dict[str, Any] = {}
    if recipe is not None:
        values = repeating.from_recipe(Path(recipe), given, yes=yes, quiet=bool(given.get("quiet")))
    if given.get("changes") == [NONE]:  # instead of the recipe's
        given = {**given, "changes": []}
    values |= {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    if "content" not in values:
        raise SettingsError("no content was given; name the picture to paint, as in nstgpu run content.jpg style.jpg")
    folder = Path(values.pop("output")) if is_folder(values.get("output") or "") else None
    if "output" not in values:
        suffix = "" if recipe is None else Path(recipe).suffix.lower()
        suffix = suffix if suffix in (".jpg", ".jpeg", ".webp", ".tif", ".tiff") else ".png"
        name = default_name(Options(content=values["content"], styles=values.get("styles", ())), suffix)
        name = name if folder is None else str(folder / name)
        values["output"] = name if values.get("force") else fresh(name, saved_on_the_way(values.get("save_every")))
    return Options(**values)
