"""Fits the model that chooses the Hopper convolutions' tiles to measured ones, and prints predicted against measured.

    python benchmarks/tile_model.py [--table results/h100_tiles_2026-11-26.jsonl] [--fit] [--epilogue]

Without --fit it says how far `wgmma_model.RATES` are from the table that `gpu_tiles.py` has made: for each layer,
direction and size the tile that the model chooses, with the best that was measured, and at last the errors. --fit looks
for better rates and prints them as Python; with --epilogue it leaves alone all but the epilogue's. Fitted is the
logarithm of the time, by Levenberg and Marquardt; that a tile is as much faster than another as was measured counts
twice, since the model is there to choose.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gpu_tiles import layers  # type: ignore[import-not-found]
from numpy.typing import NDArray

from nstgpu.kernels.cuda.conv3x3 import launch_wgmma_sm90 as conv
from nstgpu.kernels.cuda.conv3x3 import wgmma_model as model

TABLE = Path(__file__).parent / "results" / "h100_tiles_2026-11-26.jsonl"
USUAL = {"forward": model.FORWARD, "backward": model.BACKWARD}
EPILOGUE = ("store", "write_mask", "pool", "read_mask", "read_mask_missing", "accumulate", "accumulate_missing")
START = model.Rates(
    start=3, step={"256x128": 1.6, "128x128": 0.8, "64x256": 0.8}, item={"256x128": 2, "128x128": 1, "64x256": 1},
    products=3e9, memory=1e7, cache=30e6, store={"256x128": 0.5, "128x128": 0.5, "64x256": 1},
    store_partials={"256x128": 2, "128x128": 2, "64x256": 2}, write_mask=0.5, pool=0.5, read_mask=1,
    read_mask_missing=1, accumulate=2, accumulate_missing=3, slice=0.3, partials=4e6,
)  # fmt: skip
LEAST = 1e-3  # of a rate: what is as good as nothing
ORDER = 2.0  # how much more the order of tiles counts than their times
NEARBY = 1.25  # times as slow as the best: tiles whose order counts


class Measured(NamedTuple):
    """One tile of one convolution."""

    size: int
    layer: str
    way: str
    epilogue: Any
    cut: model.Cut
    microseconds: float

    @property
    def convolution(self) -> tuple[int, str, str]:
        return self.size, self.layer, self.way

    @property
    def tile(self) -> str:
        return self.cut.variant if self.cut.slices == 1 else f"{self.cut.variant} / {self.cut.slices}"


def read(path: Path) -> list[Measured]:
    """The convolutions of a table; slices by the model's own counting."""
    tiles = {tile.variant: tile for tile in conv.TILES}
    found = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if row["kind"] != "wgmma":
            continue
        layer = next(one for one in layers(row["size"]) if one.name == row["layer"])
        channels = layer.channels_in, layer.channels_out
        shape = (layer.side, layer.side, *(channels if row["dir"] == "forward" else channels[::-1]))
        work = conv.cut_up(tiles[row["tile"]], *shape, row["slices"])
        cut = conv.cut_of(work, shape)
        found.append(Measured(row["size"], row["layer"], row["dir"], row["variant"], cut, row["us"]))
    return found


def usual(table: Sequence[Measured]) -> dict[tuple[int, str, str], list[Measured]]:
    """Those with the epilogue that tiles are chosen for, by convolution, the fastest first."""
    found = defaultdict(list)
    for one in sorted(table, key=lambda one: one.microseconds):
        if one.epilogue == USUAL[one.way]:
            found[one.convolution].append(one)
    return dict(found)


def chosen(one: Measured) -> str:
    """The tile that the launcher takes for its convolution."""
    work = conv.choose_work(*one.cut.shape, backward=one.way == "backward")
    return work.tile.variant if work.slices == 1 else f"{work.tile.variant} / {work.slices}"


# ---- fitting --------------------------------------------------------------------------------------------------------
def packed(rates: model.Rates, names: Sequence[str]) -> NDArray[np.float64]:
    """Logarithms, since no rate is negative."""
    parts = (getattr(rates, name) for name in names)
    flat = [number for part in parts for number in (part.values() if isinstance(part, dict) else [part])]
    return np.log(np.maximum(flat, LEAST))


def unpacked(logs: NDArray[np.float64], names: Sequence[str], rest: model.Rates) -> model.Rates:
    numbers = iter(np.exp(logs).tolist())
    found: dict[str, Any] = rest._asdict()
    for name in names:
        part = found[name]
        found[name] = {key: next(numbers) for key in part} if isinstance(part, dict) else next(numbers)
    return model.Rates(**found)


def fitted(table: Sequence[Measured], rates: model.Rates, names: Sequence[str]) -> model.Rates:
    """The rates of these names that lie nearest to the table; the others stay."""
    measured = np.log([one.microseconds for one in table])
    pairs = []
    for epilogue in {one.epilogue for one in table}:
        by_convolution = defaultdict(list)
        for number, one in enumerate(table):
            if one.epilogue == epilogue and epilogue in ("plain", "out", *USUAL.values()):
                by_convolution[one.convolution].append(number)
        for numbers in by_convolution.values():
            best, *others = sorted(numbers, key=lambda number: table[number].microseconds)
            near = (other for other in others if measured[other] - measured[best] < np.log(NEARBY))
            pairs += [(best, other) for other in near]
    first, second = np.array(pairs).T
    best_of = {key: tiles[0].microseconds for key, tiles in usual(table).items()}
    # What nobody would choose, and what only the first layers of blocks do, need not be as near.
    counts = np.array([
        (0.4 if one.microseconds > 1.5 * best_of[one.convolution] else 1) * (0.2 if one.epilogue == "mask+acc" else 1)
        for one in table
    ])  # fmt: skip

    def apart(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        rates_now = unpacked(logs, names, rates)
        error = np.log([model.predicted(one.cut, one.epilogue, rates_now) for one in table]) - measured
        return np.concatenate([error * counts, ORDER * (error[first] - error[second])])

    logs, damping, small = packed(rates, names), 1e-2, 1e-4
    error = apart(logs)
    for _ in range(100):
        slopes = np.stack([(apart(logs + small * row) - error) / small for row in np.eye(len(logs))], axis=1)
        curvature, slope = slopes.T @ slopes, slopes.T @ error
        for _ in range(12):
            step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature) + 1e-6), -slope)
            further = np.maximum(logs + np.clip(step, -0.5, 0.5), np.log(LEAST))
            error_there = apart(further)
            if error_there @ error_there < error @ error:
                break
            damping *= 4
        else:
            break
        gain = 1 - (error_there @ error_there) / (error @ error)
        logs, error, damping = further, error_there, damping / 3
        if gain < 1e-6:
            break
    return unpacked(logs, names, rates)


# ---- what is printed ------------------------------------------------------------------------------------------------
def comparison(table: Sequence[Measured], rates: model.Rates) -> list[str]:
    """A line per convolution, and how far the model is off."""
    lines = [
        "| px | layer | way | the model's tile | predicted | measured | the best | measured | ratio |",
        "|---" * 9 + "|",
    ]
    worst = 1.0
    for (size, layer, way), tiles in sorted(usual(table).items()):
        best, choice = tiles[0], min(tiles, key=lambda one: model.predicted(one.cut, one.epilogue, rates))
        ratio = choice.microseconds / best.microseconds
        worst = max(worst, ratio)
        predicted = model.predicted(choice.cut, choice.epilogue, rates)
        lines.append(
            f"| {size} | {layer} | {way} | {choice.tile} | {predicted:.1f} us | {choice.microseconds:.1f} us "
            f"| {best.tile} | {best.microseconds:.1f} us | {ratio:.3f} |"
        )
    lines += ["", f"The worst choice takes {worst:.3f} times as long as the best tile."]
    errors = {
        name: np.log([model.predicted(one.cut, one.epilogue, rates) / one.microseconds for one in some])
        for name in sorted({one.epilogue for one in table})
        if (some := [one for one in table if one.epilogue == name])
    }
    errors["all"] = np.concatenate(list(errors.values()))
    for name, error in errors.items():
        mean, most = np.sqrt(np.mean(error**2)), np.max(np.abs(error))
        lines.append(f"{name}: off by {mean:.1%} at the mean, {most:.0%} at most, of {len(error)}")
    return lines


def as_python(rates: model.Rates) -> str:
    def number(value: float) -> str:
        return "0.0" if value <= 1.01 * LEAST else f"{value:.4g}"

    lines = ["RATES = Rates("]
    for name, value in rates._asdict().items():
        if isinstance(value, dict):
            value = "{" + ", ".join(f'"{key}": {number(part)}' for key, part in value.items()) + "}"
        else:
            value = number(value)
        lines.append(f"    {name}={value},")
    return "\n".join([*lines, ")"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--epilogue", action="store_true", help="with --fit: the epilogue's rates alone")
    options = parser.parse_args()
    table, rates = read(options.table), model.RATES
    if options.fit:
        names = EPILOGUE if options.epilogue else model.Rates._fields
        rates = fitted(table, rates if options.epilogue else START, names)
        print(as_python(rates), end="\n\n")
    print("\n".join(comparison(table, rates)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
