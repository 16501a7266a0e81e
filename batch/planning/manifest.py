"""A manifest: a CSV file, or a TOML file of [[run]] tables, in which a row is a run and a column an option of one.

Manifests come from anybody, as recipes do: a column is refused unless it decides what a picture looks like, so that no
row says where anything is written, and values are bounded as a recipe's are. Paths are the manifest's: from its folder.
"""

import csv
import io
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ...runs.files import PICTURES, is_file_spec, renamed
from ...runs.settings import PRESETS, Options, Settings, checked

MOST_BYTES = 1 << 24
MOST_ROWS = 100_000
SEPARATOR = ";"
"""Between several values in one cell of a CSV file."""
OTHERWISE = {"style-statistics": "statistics", "style-region": "style_regions"}
"""Columns that are called otherwise than the settings they stand for."""


@dataclass(frozen=True)
class Row:
    """What a row says: settings by their names, with paths that hold in the current folder."""

    title: str
    """How messages call it: "row 3 of runs.csv"."""
    values: Mapping[str, Any]


def read(file: Path) -> list[Row]:
    """The rows of a manifest. Raises SettingsError."""
    from ...engine.errors import SettingsError

    try:
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"cannot read {file}: {reason}; give a manifest in CSV or TOML, in UTF-8") from error
    if len(content) > MOST_BYTES:
        raise SettingsError(f"{file} has over {MOST_BYTES >> 20} MiB; cut the manifest into several")
    suffix = file.suffix.lower()
    if suffix not in (".csv", ".toml"):
        raise SettingsError(f"{file} is no manifest; give one that ends in .csv or .toml")
    rows = _rows_of_csv(text, file) if suffix == ".csv" else _rows_of_toml(text, file)
    if not rows:
        raise SettingsError(f"{file} has no rows; a row is a run, with columns such as content, style and size")
    if len(rows) > MOST_ROWS:
        raise SettingsError(f"{file} has {len(rows)} rows; {MOST_ROWS} are the most, cut the manifest into several")
    return [_row(values, f"row {number} of {file}", file) for number, values in enumerate(rows, start=1)]


def outside(rows: list[Row], file: Path) -> list[str]:
    """The files that rows name and that lie neither in the manifest's folder, nor in the current one, nor below."""
    folders = [os.path.realpath(file.parent), os.path.realpath(".")]
    found: dict[str, None] = {}

    def look(_: str, __: int, path: str) -> str:
        real = os.path.realpath(path)
        if not any(real.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders):
            found[path] = None
        return path

    for row in rows:
        settings = Settings(**row.values)
        renamed(settings, look)
        if settings.weights and is_file_spec(settings.weights):
            look("weights", 0, settings.weights)
    return list(found)


# ---- one row ----------------------------------------------------------------------------------------------------


def _row(given: Mapping[str, Any], title: str, file: Path) -> Row:
    from ...engine.errors import SettingsError

    values: dict[str, Any] = {}
    preset: Mapping[str, Any] = {}
    for column, value in given.items():
        if value is None or value == "":
            continue
        if column in PRESETS:
            if _truth(value, f"{title} has {column}"):
                preset = PRESETS[column]
            continue
        name = _setting(column, title)
        if name in values:
            raise SettingsError(f"{title} has {column!r} twice; give it once")
        values[name] = _value(name, value, f"{title} has {column}")
    values = checked({**preset, **values}, Settings, title)
    return Row(title, _from_its_folder(values, file.parent))


def _setting(column: str, title: str) -> str:
    """The setting that a column stands for: an option's name, with or without its dashes."""
    from ...engine.errors import SettingsError

    option = column.strip().removeprefix("--").replace("_", "-").lower()
    name = OTHERWISE.get(option, option.replace("-", "_"))
    names = {field.name for field in fields(Settings)}
    if name in names - {"weights_sha256", "size_at_most"}:
        return name
    if name + "s" in names:
        return name + "s"
    if name in {field.name for field in fields(Options)} | {"json", "checkpoint_every", "name"}:
        raise SettingsError(
            f"{title} has {column!r}, which a manifest may not say; --output and --name say where pictures go"
        )
    raise SettingsError(f"{title} has {column!r}, which is no option of a run; leave the column out")


def _value(name: str, value: Any, title: str) -> Any:
    """A cell as its setting's type; what TOML has typed already is left as it is, but for one where several may be."""
    hint = get_type_hints(Settings)[name]
    several = get_args(hint)[:1] if hint not in (str, int, float, bool) and get_args(hint)[-1:] == (Ellipsis,) else ()
    if not isinstance(value, str):
        return value if not several or isinstance(value, list) else [value]
    if several:
        return [_one(several[0], part.strip(), title) for part in value.split(SEPARATOR) if part.strip()]
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
    return _one(kinds[0], value, title)


def _one(kind: type, text: str, title: str) -> Any:
    from ...engine.errors import SettingsError

    if kind is str:
        return text
    if kind is bool:
        return _truth(text, title)
    try:
        return kind(text)
    except ValueError:
        raise SettingsError(f"{title} = {text[:40]!r}, which is no number; correct it there") from None


def _truth(value: Any, title: str) -> bool:
    from ...engine.errors import SettingsError

    known = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if str(value).lower() not in known:
        raise SettingsError(f"{title} = {str(value)[:40]!r}; write yes or no")
    return known[str(value).lower()]


def _from_its_folder(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    settings = renamed(Settings(**values), lambda _, __, path: str(folder / path))
    moved = {name: getattr(settings, name) for name in PICTURES if name in values}
    if values.get("weights") and is_file_spec(values["weights"]):
        moved["weights"] = str(folder / values["weights"])
    return values | moved


# ---- the two kinds of files -------------------------------------------------------------------------------------


def _rows_of_csv(text: str, file: Path) -> list[dict[str, Any]]:
    from ...engine.errors import SettingsError

    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [line for line in reader if any(cell.strip() for cell in line)]
    except csv.Error as error:
        raise SettingsError(f"{file}, line {reader.line_num}: {error}; correct the manifest there") from error
    if not lines:
        return []
    columns = [column.strip() for column in lines[0]]
    if twice := next((column for column in columns if columns.count(column) > 1), None):
        raise SettingsError(f"{file} has the column {twice!r} twice; give it once")
    for number, line in enumerate(lines[1:], start=1):
        if len(line) > len(columns):
            raise SettingsError(
                f"row {number} of {file} has {len(line)} cells, and {len(columns)} columns; quote commas"
            )
    return [dict(zip(columns, (cell.strip() for cell in line), strict=False)) for line in lines[1:]]


def _rows_of_toml(text: str, file: Path) -> list[dict[str, Any]]:
    from ...engine.errors import SettingsError

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        told = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise SettingsError(f"{file} is not valid TOML ({reason}); correct it there") from error
    rows = told.pop("run", None)
    if told or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SettingsError(f"{file} must have [[run]] tables and nothing else, each with the options of a run")
    return rows
