"""A run's state in an HDF5 file, so that it can go on after anything, to the very same bytes.

The file also carries the options that the run was started with, as text; what they mean is the caller's.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .costs import Costs
from .images import whole_file
from .memory import empty
from .run import RunState
from .taps import SettingsError

FORMAT = "nstgpu checkpoint 1"
_NUMBERS = ("total", "content", "style", "tv", "gradient_norm")


def write(path: str | Path, state: RunState, options: str = "") -> None:
    """Writes the whole file or none; raises ImageError where it cannot be written."""
    import h5py

    with whole_file(Path(path)) as whole, h5py.File(whole, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["fingerprint"] = state.fingerprint
        file.attrs["options"] = options
        for name in ("scale", "iteration", "failures", "learning_rate"):
            file.attrs[name] = getattr(state, name)
        file["seconds"] = np.asarray(state.seconds, np.float64)
        file["image"], file["average"] = state.image, state.average
        for name, values in state.optimizer.items():
            file[f"optimizer/{name}"] = values
        layers = list(state.history[0].per_layer) if state.history else []
        file["history/costs"] = np.array(
            [[getattr(costs, name) for name in _NUMBERS] for costs in state.history], np.float64
        ).reshape(-1, len(_NUMBERS))
        file["history/per_layer"] = np.array(
            [[costs.per_layer[layer] for layer in layers] for costs in state.history], np.float64
        ).reshape(-1, len(layers))
        file["history"].attrs["layers"] = np.array(layers, "S")


def read(path: str | Path) -> tuple[RunState, str]:
    """The state and the options' text; raises SettingsError, one line, for a file that is no checkpoint."""
    import h5py

    if not Path(path).is_file():
        raise SettingsError(f"{path}: there is no such checkpoint; give the file named with --checkpoint")
    try:
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs.get("format") != FORMAT:
                raise SettingsError(f"{path} is no checkpoint of this version of nstgpu")
            numbers = {name: file.attrs[name].item() for name in ("scale", "iteration", "failures", "learning_rate")}
            optimizer: dict[str, NDArray[Any]] = {}
            if "optimizer" in file:
                optimizer = {name: _read(values) for name, values in file["optimizer"].items()}
            state = RunState(
                fingerprint=str(file.attrs["fingerprint"]),
                seconds=tuple(file["seconds"][()].tolist()),
                image=_read(file["image"]),
                average=_read(file["average"]),
                optimizer=optimizer,
                history=_history(file["history"]),
                **numbers,
            )
            return state, str(file.attrs["options"])
    except (OSError, KeyError, AttributeError, RuntimeError) as error:
        raise SettingsError(f"{path} is no checkpoint, or is damaged ({error})") from error


def _read(dataset: Any) -> NDArray[Any]:
    values = empty(dataset.shape, dataset.dtype)
    if values.size:
        dataset.read_direct(values)
    return values


def _history(group: Any) -> list[Costs]:
    layers = [name.decode() for name in group.attrs["layers"]]
    history = []
    for numbers, per_layer in zip(group["costs"][()].tolist(), group["per_layer"][()].tolist(), strict=True):
        measured = dict(zip(_NUMBERS, numbers, strict=True))
        history.append(Costs(per_layer=dict(zip(layers, per_layer, strict=True)), **measured))
    return history
