"""A run's state in an HDF5 file, so that it can go on after anything, to the very same bytes.

The file also carries the options that the run was started with, as text; what they mean is the caller's. At its end
stands a checksum over all that comes before, which is looked at before HDF5 gets to see the file; and since anybody can
write a checksum, what is read is held to what a run can have written.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..costs.terms import Costs
from ..errors import SettingsError
from ..imaging.codecs.whole_file import whole_file
from ..memory.spill import bands, empty
from ..reporting.animation import MOST_FRAMES, Frames
from .coarse_to_fine import RunState

FORMAT = "nstgpu checkpoint 3"
MAX_TEXT = 1024**2
"""Characters in the options."""
MAX_COUNT = 10**9
MAX_SCALES = 1000
MAX_ARRAYS = 64
MAX_HELD = 100_000
MAX_LAYERS = 1000
MAX_CHANGES = 1000
MAX_REASON = 200
_NUMBERS = ("total", "content", "style", "tv", "gradient_norm")
_SEAL = b"nstgpu checkpoint, SHA-256 of the above: "
_PIECE = 1024**2


def write(path: str | Path, state: RunState, options: str = "", frames: Frames | None = None) -> None:
    """Writes the whole file or none; raises ImageError where it cannot be written."""
    import h5py

    with whole_file(Path(path)) as whole:
        with h5py.File(whole, "w") as file:
            file.attrs["format"] = np.bytes_(FORMAT)  # of fixed length, as all text in here: it needs no heap
            file.attrs["fingerprint"] = np.bytes_(state.fingerprint)
            file["options"] = np.frombuffer(options.encode(), np.uint8)
            for name in ("scale", "iteration", "failures", "learning_rate"):
                file.attrs[name] = getattr(state, name)
            if frames is not None:
                file["frames"] = np.frombuffer(b"".join(frames.packed), np.uint8)
                file["frame_bytes"] = np.array([len(packed) for packed in frames.packed], np.int64)
                file.attrs["frames_every"] = frames.every
            file["seconds"] = np.asarray(state.seconds, np.float64)
            file["earlier"], file["changed"] = (
                np.asarray(numbers, np.int64) for numbers in (state.earlier, state.changed)
            )
            file["image"], file["average"] = state.image, state.average
            optimizer = file.create_group("optimizer")
            for name, values in state.optimizer.items():
                optimizer[name] = values
            held = file.create_group("held")
            for name, values in state.held.items():
                held[name] = values
            layers = list(dict.fromkeys(layer for costs in state.history for layer in costs.per_layer))
            file["history/costs"] = np.array(
                [[getattr(costs, name) for name in _NUMBERS] for costs in state.history], np.float64
            ).reshape(-1, len(_NUMBERS))
            file["history/per_layer"] = np.array(
                [[costs.per_layer.get(layer, math.nan) for layer in layers] for costs in state.history], np.float64
            ).reshape(-1, len(layers))
            file["history"].attrs["layers"] = np.array(layers, "S")
        size = whole.seek(0, 2)
        whole.write(_SEAL + _digest(whole, size))


def read(path: str | Path) -> tuple[RunState, str]:
    """The state and the options' text; raises SettingsError, one line, for a file that is no checkpoint."""
    with _read(path) as file:
        return _state(file)


def read_frames(path: str | Path) -> Frames:
    """The frames of the run's animation, none where it had none; raises SettingsError as `read`."""
    with _read(path) as file:
        return _frames(file)


@contextmanager
def _read(path: str | Path) -> Iterator[Any]:
    """The file, open; raises SettingsError, one line, for whatever is wrong with it."""
    path = Path(path)
    if not path.is_file():
        raise SettingsError(f"{path}: there is no such checkpoint; give the file named with --checkpoint")
    from ...weights import WeightsError
    from ...weights.hdf5 import access as hdf5
    from ...weights.shortage import is_shortage

    try:
        _check_seal(path)
        with hdf5.open_hdf5(path) as file:
            yield file
    except MemoryError:
        raise
    except Exception as error:
        if not isinstance(error, SettingsError | WeightsError) and is_shortage(error):
            raise MemoryError(f"reading {path}") from error
        # A file made to deceive can fail anywhere inside HDF5, with exceptions of every kind.
        reason = str(error).removesuffix("; fetch it again") or type(error).__name__
        reason = "".join(c if c.isprintable() else " " for c in reason)
        reason = reason if len(reason) <= MAX_REASON else reason[: MAX_REASON - 1] + "…"
        raise SettingsError(f"{path} is no checkpoint, or is damaged: {reason}") from error


def _digest(file: BinaryIO, size: int) -> bytes:
    """SHA-256 of the first `size` bytes; leaves `file` behind them."""
    file.seek(0)
    digest = hashlib.sha256()
    while size > 0 and (piece := file.read(min(_PIECE, size))):
        digest.update(piece)
        size -= len(piece)
    return digest.digest()


def _check_seal(path: Path) -> None:
    with path.open("rb") as file:
        size = file.seek(0, 2) - len(_SEAL) - hashlib.sha256().digest_size
        file.seek(max(0, size))
        seal = file.read()
        if size < 0 or not seal.startswith(_SEAL):
            raise SettingsError("it does not end in a checksum, as this version writes them; start the run again")
        if _digest(file, size) != seal[len(_SEAL) :]:
            raise SettingsError("its bytes are not those that were written; start the run again")


def _state(file: Any) -> tuple[RunState, str]:
    from ...weights.hdf5 import access as hdf5

    if hdf5.text(file, "format") != FORMAT:
        raise SettingsError("it is of another version of nstgpu")
    scale, iteration, failures = (_count(file, name) for name in ("scale", "iteration", "failures"))
    learning_rate = float(_scalar(file, "learning_rate", "f"))
    seconds = tuple(float(value) for value in _array(file, "seconds"))
    image, average = _array(file, "image"), _array(file, "average")
    earlier, changed = (_counts(file, name) for name in ("earlier", "changed"))
    if scale >= MAX_SCALES or len(seconds) != scale + 1 or not all(0 <= s < math.inf for s in seconds):
        raise SettingsError("its scales and their times cannot be")
    if len(earlier) != scale or len(changed) > MAX_CHANGES or list(changed) != sorted(changed):
        raise SettingsError("its scales and its changes cannot be")
    if image.ndim != 3 or image.shape[2] != 3 or image.shape != average.shape or not {image.dtype.kind} == {"f"}:
        raise SettingsError(f"its picture has the shape {image.shape}")
    if not (_within(image, 0, 1) and _within(average, 0, 1)):
        raise SettingsError("its picture has values that no picture has")
    optimizer = _arrays(file, "optimizer", MAX_ARRAYS)
    held = _arrays(file, "held", MAX_HELD) if "held" in file else {}
    characters = _array(file, "options")
    if characters.dtype != np.uint8 or characters.ndim != 1 or characters.size > MAX_TEXT:
        raise SettingsError("its options are no text")
    state = RunState(
        hdf5.text(file, "fingerprint") or "",
        scale,
        iteration,
        failures,
        seconds,
        learning_rate,
        image,
        average,
        optimizer,
        _history(file),
        held,
        earlier,
        changed,
    )
    return state, characters.tobytes().decode()


def _arrays(file: Any, name: str, most: int) -> dict[str, NDArray[Any]]:
    """Those of a group, by name; at most so many, all finite."""
    from ...weights.hdf5 import access as hdf5

    group = hdf5.member(file, name)
    if not hasattr(group, "keys") or len(group) > most:  # type: ignore[arg-type]
        raise SettingsError(f"its {name} is missing")
    found: dict[str, NDArray[Any]] = {}
    for member in group:  # type: ignore[union-attr]
        found[member] = _array(group, member)
        if not _within(found[member], -math.inf, math.inf):
            raise SettingsError(f"its {member} is not finite")
    return found


def _frames(file: Any) -> Frames:
    if "frames" not in file:
        return Frames(1, ())
    lengths, packed = (_array(file, name) for name in ("frame_bytes", "frames"))
    sizes = [int(size) for size in lengths.ravel()[: MOST_FRAMES + 1]]
    fitting = lengths.ndim == packed.ndim == 1 and len(sizes) == len(lengths) <= MOST_FRAMES
    if not fitting or packed.dtype != np.uint8 or min(sizes, default=1) < 1 or sum(sizes) != packed.size:
        raise SettingsError("the frames of its animation cannot be")
    ends = list(accumulate(sizes))
    pieces = tuple(packed[end - size : end].tobytes() for end, size in zip(ends, sizes, strict=True))
    return Frames(max(1, _count(file, "frames_every")), pieces)


def _scalar(group: Any, name: str, kinds: str) -> Any:
    stored = group.attrs.get_id(name)
    if stored.shape != () or stored.dtype.kind not in kinds or stored.dtype.itemsize > 8:
        raise SettingsError(f"its {name} is no number")
    return group.attrs[name].item()


def _count(group: Any, name: str) -> int:
    number = int(_scalar(group, name, "iu"))
    if not 0 <= number <= MAX_COUNT:
        raise SettingsError(f"its {name} is {number}")
    return number


def _counts(group: Any, name: str) -> tuple[int, ...]:
    numbers = _array(group, name)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not ((numbers >= 0) & (numbers <= MAX_COUNT)).all():
        raise SettingsError(f"its {name} are no counts")
    return tuple(int(number) for number in numbers)


def _array(group: Any, name: str) -> NDArray[Any]:
    """Numbers that lie in the file in one piece, so that they are no more than the file has bytes."""
    from ...weights.hdf5 import access as hdf5

    stored = hdf5.dataset(group, name)
    if stored is None:
        raise SettingsError(f"its {name} is missing")
    if stored.shape is None or stored.dtype.kind not in "fiub" or stored.dtype.itemsize > 8:
        raise SettingsError(f"its {name} is no array of numbers")
    if stored.chunks is not None or stored.id.get_storage_size() != stored.size * stored.dtype.itemsize:
        raise SettingsError(f"its {name} is not stored as nstgpu stores it")
    values = empty(stored.shape, stored.dtype)
    if values.size:
        stored.read_direct(values)
    return values


def _within(values: NDArray[Any], low: float, high: float) -> bool:
    """Whether all are finite and between two numbers, to rounding."""
    slack, flat = 1e-3, values.reshape(-1)
    return all(
        bool(np.isfinite(part).all()) and low - slack <= float(part.min()) and float(part.max()) <= high + slack
        for part in (flat[piece] for piece in bands(flat.shape))
    )


def _history(file: Any) -> list[Costs]:
    from ...weights.hdf5 import access as hdf5

    group = hdf5.member(file, "history")
    layers = hdf5.name_list(group, "layers") if group is not None else None
    if layers is None or len(layers) > MAX_LAYERS:
        raise SettingsError("its history names no layers")
    costs, per_layer = _array(group, "costs"), _array(group, "per_layer")
    if costs.ndim != 2 or costs.shape[1] != len(_NUMBERS) or per_layer.shape != (len(costs), len(layers)):
        raise SettingsError(f"its history has the shapes {costs.shape} and {per_layer.shape}")
    history = []
    for numbers, measured in zip(costs.tolist(), per_layer.tolist(), strict=True):
        named = dict(zip(_NUMBERS, numbers, strict=True))
        there = {layer: cost for layer, cost in zip(layers, measured, strict=True) if not math.isnan(cost)}
        history.append(Costs(per_layer=there, **named))  # layers may change on the way
    return history
