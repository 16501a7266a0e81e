"""Fits the model that chooses the Hopper convolutions' tiles to measured ones, and prints predicted against measured.

    python benchmarks/tile_model.py [--tables FILE...] [--fit] [--epilogue]

Without --fit it says how far `wgmma_model.RATES` are from the tables that `gpu_tiles.py` has made: for each layer,
direction and size the tile that the model chooses, with the best that was measured, and at last the errors. --fit looks
for better rates and prints them as Python; with --epilogue it leaves alone all but the epilogue's. Fitted is the
logarithm of the time, by Levenberg and Marquardt; that a tile is as much faster than another as was measured counts
four times, since the model is there to choose.
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

RESULTS = Path(__file__).parent / "results"
TABLES = [RESULTS / f"h100_tiles_2026-11-{day}.jsonl" for day in (26, 27)]
"""The second has the backward kernels since their results leave through the copy engine, at some of the shapes."""
USUAL = {"forward": model.FORWARD, "backward": model.BACKWARD}
EPILOGUE = ("store", "leave", "write_mask", "pool", "read_mask", "accumulate")
START = model.Rates(
    start=3, step={"256x128": 1.6, "128x128": 0.8, "64x256": 0.8}, item={"256x128": 2, "128x128": 1, "64x256": 1},
    products=3e9, memory=1e7, cache=30e6, store={"256x128": 0.5, "128x128": 0.5, "64x256": 1},
    store_partials={"256x128": 2, "128x128": 2, "64x256": 2}, write_mask=0.5, pool=0.5, read_mask=0.2,
    accumulate=0.5, leave={"256x128": 0.5, "128x128": 0.5, "64x256": 1}, slice=0.3, partials=4e6,
)  # fmt: skip
LEAST = 1e-3  # of a rate: what is as good as nothing
ORDER = 4.0  # how much more the order of tiles counts than their times
NEARBY = 1.25  # times as slow as the best: tiles whose order counts


class Measured(NamedTuple):
    """One tile of one convolution."""

    size: int
    layer: str
    way: str
    epilogue: Any
    cut: model.Cut
    microseconds: float
    session: int
    """Only times of one session are compared with each other."""
    usual: bool
    """Whether the epilogue is the one that tiles are chosen for."""

    @property
    def convolution(self) -> tuple[int, str, str, int]:
        return self.size, self.layer, self.way, self.session

    @property
    def tile(self) -> str:
        return self.cut.variant if self.cut.split_k == 1 else f"{self.cut.variant} / {self.cut.split_k}"


def read(paths: Sequence[Path]) -> list[Measured]:
    """The convolutions of tables. Of those before the last that has a direction what does not depend on how an epilogue
    reads counts alone: slices, and what reads nothing, which is the usual one there."""
    tiles = {tile.variant: tile for tile in conv.TILES}
    found: list[Measured] = []
    tables = [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]
    newest = {row.get("dir"): session for session, table in enumerate(tables) for row in table}
    for session, row in ((session, row) for session, table in enumerate(tables) for row in table):
        if row["kind"] != "wgmma":
            continue
        layer = next(one for one in layers(row["size"]) if one.name == row["layer"])
        channels = layer.channels_in, layer.channels_out
        shape = (layer.side, layer.side, *(channels if row["dir"] == "forward" else channels[::-1]))
        work = conv.cut_up(tiles[row["tile"]], *shape, row["slices"])
        cut, is_usual = conv.cut_of(work, shape), row["variant"] == USUAL[row["dir"]]
        if session < newest[row["dir"]] and row["slices"] == 1:
            if row["variant"] != "plain":
                continue
            is_usual = True
        found.append(Measured(row["size"], row["layer"], row["dir"], row["variant"], cut, row["us"], session, is_usual))
    return found


def usual(table: Sequence[Measured]) -> dict[tuple[int, str, str, int], list[Measured]]:
    """Those with the epilogue that tiles are chosen for, by convolution, the fastest first."""
    found = defaultdict(list)
    for one in sorted(table, key=lambda one: one.microseconds):
        if one.usual:
            found[one.convolution].append(one)
    return dict(found)


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
    for epilogue in ("plain", "out", None):  # None: the usual one
        by_convolution = defaultdict(list)
        for number, one in enumerate(table):
            if one.usual if epilogue is None else one.epilogue == epilogue:
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
    for (size, layer, way, _), tiles in sorted(usual(table).items()):
        times = [model.predicted(one.cut, one.epilogue, rates) for one in tiles]
        near = [pair for pair in zip(tiles, times, strict=True) if pair[1] <= conv.NO_DIFFERENCE * min(times)]
        best, chosen = tiles[0], min(near, key=lambda pair: (pair[0].cut.split_k, pair[1]))[0]  # as the launcher
        ratio = chosen.microseconds / best.microseconds
        worst = max(worst, ratio)
        predicted = model.predicted(chosen.cut, chosen.epilogue, rates)
        lines.append(
            f"| {size} | {layer} | {way} | {chosen.tile} | {predicted:.1f} us | {chosen.microseconds:.1f} us "
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
    parser.add_argument("--tables", type=Path, nargs="+", default=TABLES, help="JSON lines, the oldest first")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--epilogue", action="store_true", help="with --fit: the epilogue's rates alone")
    options = parser.parse_args()
    table, rates = read(options.tables), model.RATES
    if options.fit:
        names = EPILOGUE if options.epilogue else model.Rates._fields
        rates = fitted(table, rates if options.epilogue else START, names)
        print(as_python(rates), end="\n\n")
    print("\n".join(comparison(table, rates)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
