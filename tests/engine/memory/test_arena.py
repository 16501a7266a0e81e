"""The arena: buffers alive together never overlap, and those that are not do share."""

from collections.abc import Callable

import numpy as np
import pytest

from nstgpu import Weights
from nstgpu.engine.memory.arena import ALIGNMENT, Buffer, lay_out
from nstgpu.engine.model import network
from nstgpu.kernels import open_device


@pytest.mark.parametrize("seed", range(5))
def test_buffers_alive_together_do_not_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    buffers = []
    for index in range(40):
        first = int(rng.integers(0, 30))
        shape = (int(rng.integers(1, 5000)),)
        buffers.append(Buffer(str(index), shape, np.dtype(np.float32), first, first + int(rng.integers(0, 10))))
    offsets, size = lay_out(buffers)
    for a in buffers:
        assert offsets[a.name] % ALIGNMENT == 0
        assert offsets[a.name] + a.nbytes <= size
        for b in buffers:
            if a is not b and a.first <= b.last and b.first <= a.last:
                apart = offsets[a.name] + a.nbytes <= offsets[b.name] or offsets[b.name] + b.nbytes <= offsets[a.name]
                assert apart, (a, b)
    busiest = max(sum(b.nbytes for b in buffers if b.first <= step <= b.last) for step in range(40))
    assert busiest <= size <= 1.3 * busiest


def test_the_network_keeps_only_what_is_needed(thin: Callable[..., Weights]) -> None:
    device = open_device("cpu")
    chain = network.build(device, thin([[16, 16], [32, 32], [64]]), "relu3_1", "max")
    together = [b for b in network.plan(device, chain, (64, 64), {"relu3_1"}, backward=True) if b.name != "workspace"]
    busiest = max(sum(b.nbytes for b in together if b.first <= step <= b.last) for step in range(40))
    assert lay_out(together)[1] <= 1.1 * busiest
    assert "1.output" not in {buffer.name for buffer in together}  # only pooled, so never stored whole
