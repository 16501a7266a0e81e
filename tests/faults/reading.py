"""What is done with a damaged file, and what may come of it: a result, or one line that says what is wrong.

`python -m tests.faults.reading KIND` is a worker: lines of paths on standard input, a line of JSON for each on standard
output, after a line of nothing once it is ready. It has limits of memory, and whoever started it has a limit of time.
"""

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import nstgpu

MOST_BYTES = 3 << 30
"""Of address space, with what Python and the libraries take of it (about 1 GiB of mappings)."""
ONE_LINE = (nstgpu.ImageError, nstgpu.WeightsError, nstgpu.SettingsError)


def read_picture(path: Path) -> str:
    """Pixels between 0 and 1, all of them finite."""
    from nstgpu.engine.imaging import files

    pixels = files.read(path).pixels
    if not (pixels.ndim == 3 and pixels.shape[2] == 3 and ((pixels >= 0) & (pixels <= 1)).all()):
        raise AssertionError(f"pixels of shape {pixels.shape}, from {pixels.min()} to {pixels.max()}")
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def read_weights(path: Path) -> str:
    """A chain of convolutions whose numbers are finite."""
    import numpy as np

    weights = nstgpu.load_weights(path)
    if not all(np.isfinite(each.kernel).all() and np.isfinite(each.bias).all() for each in weights.convolutions):
        raise AssertionError("filters that are not finite")
    return f"up to {weights.taps[-1]}"


def read_recipe(path: Path) -> str:
    """Settings of the types that a run takes, and none that says where to write."""
    from nstgpu.engine.reporting import recipe
    from nstgpu.runs.settings import Settings, checked

    values = recipe.load(path)
    values.pop(recipe.VERSION_KEY, None)
    return f"{len(checked(values, Settings, 'the recipe'))} settings"


def read_checkpoint(path: Path) -> str:
    """A state of a run."""
    from nstgpu.engine.optimizers import checkpoint

    state, _ = checkpoint.read(path)
    return f"{len(state.history)} iterations"


READ: dict[str, Callable[[Path], str]] = {
    "pictures": read_picture,
    "weights": read_weights,
    "recipes": read_recipe,
    "checkpoints": read_checkpoint,
}


def outcome(kind: str, path: Path) -> tuple[str, str]:
    """ "read" or "refused", with what came of it; "fault" for anything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return "read", READ[kind](path)
    except ONE_LINE as error:
        text = str(error)
        whole = text and "\n" not in text and len(text) < 2000 and text.isprintable()
        return ("refused" if whole else "fault"), repr(text)
    except MemoryError as error:  # said in one line by the command line; within the limit above it is not warranted
        return "fault", f"MemoryError: {error}"
    except BaseException as error:
        return "fault", f"{type(error).__name__}: {error}"


def limit_memory() -> None:
    """Of this process, where the platform knows such a limit."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))


def main() -> None:
    kind = sys.argv[1]
    limit_memory()
    outcome(kind, Path("nothing"))  # imports what reading takes, for which there is a time of its own
    print(flush=True)
    for line in sys.stdin:
        print(json.dumps(outcome(kind, Path(line.rstrip("\n")))), flush=True)


if __name__ == "__main__":
    main()
