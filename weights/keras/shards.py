"""A `.weights.json`: the list of shards that Keras saves a large model's weights in, each an HDF5 file beside it."""

import json
import re
from pathlib import Path
from typing import Any

from ..errors import WeightsError

MAX_BYTES = 8 * 1024**2
MAX_SHARDS = 256


def shards_of(path: Path) -> list[Path] | None:
    """The shards that the file at `path` lists, in order; None where it is no such list.

    Raises `WeightsError` for a shard that is not there, or that would not lie in the same folder.
    """
    if path.stat().st_size > MAX_BYTES:
        return None
    try:
        listed: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    weight_map = listed.get("weight_map") if isinstance(listed, dict) else None
    if not isinstance(weight_map, dict):
        return None
    names: dict[str, None] = {}
    for shards in weight_map.values():
        for name in shards if isinstance(shards, list) else [shards]:
            if not isinstance(name, str):
                raise WeightsError("its list of shards names something that is no file; save the model again")
            names[name] = None
    if not names or not all(name.endswith((".h5", ".hdf5")) for name in names):
        return None
    if len(names) > MAX_SHARDS:
        raise WeightsError(f"lists {len(names):,} shards, more than the {MAX_SHARDS} that are read; save it in fewer")
    return [_shard(path.parent, name) for name in sorted(names)]


def refuse_one_of_several(path: Path) -> None:
    """Refuses a shard given alone where the list that it belongs to lies beside it."""
    if match := re.fullmatch(r"(.+)_\d{5}\.weights\.h5", path.name):
        for whole in (path.with_name(f"{match[1]}.weights.json"), path.with_name(f"{match[1]}.json")):
            if whole.is_file() and path in (shards_of(whole) or ()):
                raise WeightsError(f"one of the shards that {whole.name} lists; give {whole}")


def _shard(folder: Path, name: str) -> Path:
    if Path(name).name != name or "\\" in name or ":" in name:
        raise WeightsError(f"its shard {name!r} is not in its own folder, and only such shards are read")
    shard = folder / name
    if not shard.is_file():
        raise WeightsError(f"its shard {name} is missing; put it into the same folder")
    return shard
