"""GPUs as the choice of tiles sees them: what a multiprocessor holds, and what it does in a clock cycle."""

from dataclasses import dataclass

from .precisions import PRECISIONS

WGMMA_PER_CLOCK = 2048  # 16-bit multiply-adds of a multiprocessor of Hopper's; mma.sync reaches fewer


@dataclass(frozen=True)
class GpuSpec:
    """A GPU as the model sees it."""

    capability: int  # 80 for 8.0
    multiprocessors: int
    shared_bytes: int  # of a multiprocessor
    block_shared_bytes: int  # of these, what one block may have
    # Per clock and multiprocessor:
    mma_per_clock: int  # of 16-bit numbers
    l2_bytes: float
    memory_bytes: float

    def peak(self, precision: str) -> float:
        """Multiply-adds in a precision, by the data sheet; with wgmma where the GPU has it."""
        mma = WGMMA_PER_CLOCK if self.capability == 90 else self.mma_per_clock
        lanes = 64 if self.capability <= 80 else 128
        known = PRECISIONS.get(precision)
        return mma * known.rate if known is not None and known.on_tensor_cores else lanes


_KINDS = {
    # by capability: KB of shared memory of a multiprocessor and of a block, then the rates
    75: (64, 64, 512, 20, 5),
    80: (164, 163, 1024, 30, 13),
    86: (100, 99, 512, 18, 6.5),
    89: (100, 99, 512, 16, 3),
    90: (228, 227, 1280, 30, 18),  # wgmma would have 2048
    100: (228, 227, 1280, 30, 26),
    120: (100, 99, 512, 16, 4),
}


def spec_of(capability: tuple[int, int], multiprocessors: int) -> GpuSpec:
    """The model of a GPU of this compute capability; one that is not known is taken for the next lower that is."""
    number = capability[0] * 10 + capability[1]
    known = max((kind for kind in _KINDS if kind <= number), default=min(_KINDS))
    shared, block_shared, *rates = _KINDS[known]
    return GpuSpec(number, multiprocessors, int(shared) << 10, int(block_shared) << 10, int(rates[0]), *rates[1:])


MULTIPROCESSORS = 132
"""Of an H100 or H200 in an SXM module."""
H200 = spec_of((9, 0), MULTIPROCESSORS)  # also what the emulator stands for

SIMT_MULTIPROCESSORS = 128
"""That the split-K of the kernels without tensor cores fills: 108 to 170 in the GPUs at hand. Not an H200's 132, since
sums would be added up in another order than before, and not a GPU's own, since the same shape is to give the same bytes
on every GPU."""
