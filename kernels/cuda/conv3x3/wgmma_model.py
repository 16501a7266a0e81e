"""How long a convolution by wgmma_sm90.cuh takes on an H100, from the way it is cut up: what chooses tiles and slices.

Plain arithmetic, no GPU. A multiprocessor works through its items one after the other, `k_tiles` steps each, and stores
each item's results in an epilogue. Two consumers take turns, so that one's epilogue lies beside the other's products;
where they work together, nobody multiplies meanwhile. On top comes what grows with all the work, whoever does it:
products (the clock falls with them) and bytes of memory. Slices are a second launch, which reads what the first wrote.

`RATES` are fitted to every tile and slicing that an H100 was measured with (benchmarks/results/h100_tiles_*.jsonl) by
benchmarks/tile_model.py, which prints how far it is from each of them: 7% at the mean, and the tile that it finds
fastest is never more than 2.5% slower than the best. The epilogue's rates are terms of their own: they are fitted anew
where epilogues change, and the others stay.
"""

from typing import Literal, NamedTuple

from ..gpu_spec import MULTIPROCESSORS

Epilogue = Literal["out", "out+mask", "pooled+choice", "pooled+choice+mask", "plain", "mask", "mask+acc"]
"""What is done with the sums: forward, what is stored; backward, whether they are masked and added to what is there."""
FORWARD: Epilogue = "out+mask"
BACKWARD: Epilogue = "mask"
"""What most layers do, which tiles are chosen for: a choice that hung on more would be another for the same shape."""

STEP_PRODUCTS = 3 * 64  # of a step, for every sum: a column of three taps of 64 channels
POOLED_BYTES = 0.25 + 1 / 32  # of the bytes of what is pooled


class Cut(NamedTuple):
    """A convolution of (height, width, channels_in, channels_out), cut up into items of pixels x channels."""

    shape: tuple[int, int, int, int]
    variant: str
    together: bool
    pixels: int
    channels: int
    items: int
    k_tiles: int  # of the longest slice
    split_k: int


class Rates(NamedTuple):
    """Microseconds, unless they say otherwise; mappings are by the tile's variant. On an H100."""

    start: float
    """Of a launch: until the first products."""
    step: dict[str, float]
    """64 channels of three taps."""
    item: dict[str, float]
    """Between an item and the next."""
    products: float
    """Multiply-adds in a microsecond, of the part that grows with all the work."""
    memory: float
    """Bytes in a microsecond, of the same."""
    cache: float
    """Bytes of which the epilogue finds what it needs in L2."""
    store: dict[str, float]
    """A forward epilogue, where nothing of it lies in L2."""
    leave: dict[str, float]
    """A backward epilogue, likewise: through shared memory and the copy engine."""
    store_partials: dict[str, float]
    """The same, of a slice's sums in float32."""
    write_mask: float
    pool: float
    read_mask: float
    accumulate: float
    slice: float
    """Adding up one slice."""
    partials: float
    """Bytes in a microsecond that the second launch reads and writes."""


RATES = Rates(
    start=3.755,
    step={"256x128": 1.466, "128x128": 0.8017, "64x256": 0.7991},
    item={"256x128": 2.525, "128x128": 0.8166, "64x256": 1.069},
    products=2.814e09,
    memory=1.219e07,
    cache=3.173e07,
    store={"256x128": 0.1331, "128x128": 0.0, "64x256": 4.373},
    leave={"256x128": 0.0, "128x128": 0.0, "64x256": 3.763},
    store_partials={"256x128": 3.803, "128x128": 2.06, "64x256": 3.347},
    write_mask=0.5932,
    pool=0.7128,
    read_mask=0.0,
    accumulate=0.0,
    slice=0.4401,
    partials=6.019e06,
)
"""Of an H100 (SXM, 700 W), 2026-11-26 and 27."""


def predicted(cut: Cut, epilogue: Epilogue, rates: Rates = RATES) -> float:
    """Microseconds, of all launches."""
    height, width, channels_in, channels_out = cut.shape
    pixels = height * width
    split = cut.split_k > 1
    pools = epilogue.startswith("pooled") and not split
    masks, accumulates = "mask" in epilogue and not split, epilogue == "mask+acc" and not split

    nbytes = 2 * pixels * (channels_in + channels_out * (POOLED_BYTES if pools else 1))
    nbytes += pixels * channels_out * (masks / 8 + 2 * accumulates)
    missing = max(0.0, 1 - rates.cache / nbytes)
    used = min(1.0, channels_out / cut.channels)  # of the tile, if it overhangs
    if split:
        storing = rates.store_partials[cut.variant] / used
    elif epilogue in ("plain", "mask", "mask+acc"):
        storing = rates.leave[cut.variant] * missing + rates.read_mask * masks + rates.accumulate * accumulates
    else:
        part = 0.3 if pools else 1.0
        storing = rates.store[cut.variant] * missing * part + rates.pool * pools + rates.write_mask * masks
    storing *= used
    multiplying = rates.item[cut.variant] + cut.k_tiles * rates.step[cut.variant]
    rounds = -(-cut.items // MULTIPROCESSORS)
    if cut.together:
        path = rounds * (multiplying + storing)
    else:
        path = (rounds - 1) * max(multiplying, (multiplying + storing) / 2) + multiplying + storing
    shared = cut.items * cut.pixels * cut.channels * cut.k_tiles * STEP_PRODUCTS / rates.products
    microseconds = rates.start + path + shared + nbytes / rates.memory
    if split:
        microseconds += cut.split_k * rates.slice + (4 * cut.split_k + 2) * pixels * channels_out / rates.partials
    return microseconds
