"""Whether Hopper's kernels compute what they should here: each runs once on a small layer, against the reference.

`problem_with` does that for a part of them; nobody should use it on a GPU where `known_problem`, which asks it in a
process of its own and remembers the answer, has something to say.
"""

import ctypes
import functools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..cache import cache_directory, cached, digest
from ..device import Array
from ..errors import DeviceError, OutOfMemoryError
from ..reference import Reference
from .conv3x3 import launch_wgmma_fp32_sm90 as conv_fp32
from .conv3x3 import launch_wgmma_sm90 as conv
from .conv3x3 import launch_wgmma_unpool_sm90 as unpool
from .gpu_spec import MULTIPROCESSORS
from .gram import launch_wgmma_sm90 as gram
from .precisions import PRECISIONS
from .runtime import tensor_map
from .runtime.cupy_runtime import CudaRuntime
from .runtime.nvrtc import FOLDER, cubin_key, find_nvrtc
from .runtime.protocol import Runtime
from .runtime.tensor_map import Target, target_of
from .storage import rounded, widened

_log = logging.getLogger("nstgpu")

Part = Literal["convolutions", "unpooling"]
"""Which kernels: all that a set cannot do without, or the input gradients that go back through a pool, whose place two
launches take."""

# Tiles, channels and steps that end within a box, and more than one of each; channels that fill it; filters that stay.
SELF_TEST_SHAPES = ((19, 21, 72, 136), (17, 33, 64, 128), (33, 17, 64, 64))
# Of the largest result: twice what rounding it takes; and what a precision may be off by.
SELF_TEST_BOUND = {"bf16": 2.0**-7, "fp16": 2.0**-10, "tf32": 2e-3, "3xtf32": 1e-5}
UNPOOL_TEST_SHAPES = ((39, 42, 72, 136), (35, 67, 64, 128))  # likewise, of what was pooled
GRAM_TEST_SHAPES = ((31, 29, 56), (13, 31, 136))  # for each tile: likewise, and more steps than stages
GRAM_TEST_BOUND = 2.0**-16  # sums of a few hundred terms in fp32
SELF_TEST_SECONDS = 120  # in which a kernel that never ends is given up


_MODULES = [Path(str(module.__file__)) for module in (conv, conv_fp32, unpool, gram, tensor_map, sys.modules[__name__])]


def known_problem(runtime: Runtime, precision: str, part: Part = "convolutions") -> str | None:
    """`problem_with` these kernels in one precision, found out without harm.

    On a GPU in a process of its own, whatever becomes of that; the answer is kept on disk, beside the compiled kernels,
    for as long as kernels, driver and this module stay the same. A test that could not be carried out is a problem too,
    but is not kept.
    """
    if not isinstance(runtime, CudaRuntime):
        return problem_with(runtime, runtime.spec.multiprocessors, (precision,), part)
    index = runtime.allocate(1).data.device_id

    def produce(target: Path) -> None:
        target.write_text(json.dumps(_problem_alone(index, precision, part)))

    try:
        key = _self_test_key(precision, runtime.architecture, part)
        problem: str | None = json.loads(cached(cache_directory("cubin"), key, ".json", produce).content)
    except (OSError, DeviceError) as error:
        return f"they could not be tested: {error}"
    return problem


def _self_test_key(precision: str, architecture: str, part: Part) -> str:
    """Names all that the answer depends on."""
    version = ctypes.c_int()
    tensor_map.driver().cuDriverGetVersion(ctypes.byref(version))
    sources = [FOLDER / "instantiations" / name for name in PRECISIONS[precision].sources]
    kernels = [
        cubin_key(find_nvrtc().version, source, architecture) for source in (*sources, FOLDER / "gram" / "simt.cu")
    ]
    return digest(repr((kernels, version.value, part)).encode() + b"".join(module.read_bytes() for module in _MODULES))


def _problem_alone(index: int, precision: str, part: Part) -> str | None:
    """`problem_with` as another process finds it; raises DeviceError or OSError where that comes to no answer."""
    _log.info("testing the kernels for tensor cores (first run only)")
    command = [sys.executable, "-m", __name__, str(index), precision, part]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SELF_TEST_SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        return f"their test did not end in {SELF_TEST_SECONDS} s"
    if ended.returncode != 0:
        said = ended.stderr.strip().splitlines() or ["nothing"]
        raise DeviceError(f"the test ended with code {ended.returncode} and said: {said[-1]}")
    answer: str | None = json.loads(ended.stdout.splitlines()[-1])
    return answer


def problem_with(
    runtime: Runtime, multiprocessors: int = MULTIPROCESSORS, precisions: Sequence[str] = ("bf16", "fp16"),
    part: Part = "convolutions",
) -> str | None:  # fmt: skip
    """What is wrong with these kernels on this runtime, in one line; None if they compute what they should.

    Runs each kernel of every tile once, forward and backward, and in 16 bits of the Gram matrix, in these precisions,
    against float64. A fault of a kernel (a trap, an illegal access) makes a GPU unusable for the whole process: call
    this in one of its own first.
    """
    target = target_of(runtime, multiprocessors)
    for precision in precisions:
        bound_of_tiles, of_16_bits = SELF_TEST_BOUND[precision], PRECISIONS[precision].itemsize == 2
        tiles: Sequence[Any] = conv.TILES if of_16_bits else conv_fp32.TILES[conv_fp32.as_precision(precision)]
        tests: list[tuple[str, float, Callable[[int], float]]] = [
            (f"tile {tile.variant}", bound_of_tiles,
             functools.partial(_self_test_error, runtime, target, precision, tile, shape))
            for tile in tiles for shape in SELF_TEST_SHAPES
        ]  # fmt: skip
        if part == "unpooling":
            tests = [
                (f"unpooling tile {tile.variant}", bound_of_tiles,
                 functools.partial(_unpool_test_error, runtime, target, precision, tile, shape))
                for tile in tiles for shape in UNPOOL_TEST_SHAPES
            ]  # fmt: skip
        elif of_16_bits:
            tests += [
                (f"gram {tile.variant}", GRAM_TEST_BOUND,
                 functools.partial(_gram_test_error, runtime, target, precision, shape))
                for tile, shape in zip(gram.GRAM_TILES, GRAM_TEST_SHAPES, strict=True)
            ]  # fmt: skip
        for what, bound, test in tests:
            for split_k in (1, 2):
                try:
                    error = test(split_k)
                except OutOfMemoryError:
                    raise  # which says nothing of the kernels
                except DeviceError as problem:
                    return f"{what} in {precision}: {problem}"
                if not error <= bound:  # so that a NaN is a problem
                    return f"{what} in {precision}, {split_k} slices: off by {error:.2g} of the largest value"
    return None


def _self_test_error(
    runtime: Runtime, target: Target, precision: str, tile: Any, shape: tuple[int, int, int, int], split_k: int
) -> float:
    """The largest error of activations and input gradients, masked and added to what is there, relative to the largest
    of each."""
    height, width, channels_in, channels_out = shape
    random = np.random.default_rng(0)
    kernel = random.standard_normal((3, 3, channels_in, channels_out)) / (3 * np.sqrt(channels_in))
    kernel = rounded(kernel.astype(np.float32), precision)
    launcher: Any = conv if isinstance(tile, conv.Tile) else conv_fp32
    filters = launcher.pack_filters(widened(kernel, precision), np.zeros(channels_out, np.float32), precision)
    x = rounded(random.standard_normal((height, width, channels_in)).astype(np.float32), precision)
    gradient = rounded(random.standard_normal((height, width, channels_out)).astype(np.float32), precision)

    held = functools.partial(_held, runtime)
    on_device = filters._replace(
        forward=held(filters.forward), backward=held(filters.backward), bias=held(filters.bias)
    )
    relu_mask = random.standard_normal(x.shape) > 0
    x_held, gradient_held, mask_held = held(x), held(gradient), held(np.packbits(relu_mask, axis=2, bitorder="little"))
    y, back = held(np.zeros_like(gradient)), held(x)
    forward = launcher.cut_up(tile, height, width, channels_in, channels_out, split_k)
    backward = launcher.cut_up(tile, height, width, channels_out, channels_in, split_k)
    needs = (
        launcher.partial_bytes(forward, height, width, channels_out),
        launcher.partial_bytes(backward, height, width, channels_in),
    )
    workspace = runtime.allocate(max(needs))
    for launch in (
        *launcher.conv3x3_relu(x_held, on_device, out=y, relu_mask=None, pooling="max", pooled=None, pool_argmax=None,
                      workspace=workspace, target=target, work=forward),
        *launcher.conv3x3_input_gradient(gradient_held, on_device, out=back, relu_mask=mask_held, accumulate=True,
                                workspace=workspace, target=target, work=backward),
    ):  # fmt: skip
        runtime.launch(launch)

    reference = Reference()
    exact = reference.pack_filters(widened(kernel, precision), filters.bias)
    expected_y = np.empty(gradient.shape)
    expected_back = widened(x, precision).astype(np.float64)
    reference.conv3x3_relu(widened(x, precision).astype(np.float64), exact, out=expected_y, relu_mask=None,
                           pooling="max", pooled=None, pool_argmax=None)  # fmt: skip
    reference.conv3x3_input_gradient(widened(gradient, precision).astype(np.float64), exact, out=expected_back,
                                     relu_mask=relu_mask, accumulate=True)  # fmt: skip
    return max(
        float(np.max(np.abs(widened(runtime.download(ours), precision) - expected)) / np.max(np.abs(expected)))
        for ours, expected in ((y, expected_y), (back, expected_back))
    )


def _unpool_test_error(
    runtime: Runtime, target: Target, precision: str, tile: conv.Tile, shape: tuple[int, int, int, int], split_k: int
) -> float:
    """The largest error of gradients of (H, W, C_in) that were pooled before a convolution to C_out channels, relative
    to the largest."""
    height, width, channels_in, channels_out = shape
    pooled = (height // 2, width // 2)
    random = np.random.default_rng(0)
    kernel = random.standard_normal((3, 3, channels_in, channels_out)) / (3 * np.sqrt(channels_out))
    filters = conv.pack_filters(
        kernel.astype(np.float32), np.zeros(channels_out, np.float32), tensor_map.as_half(precision)
    )
    exact_kernel = widened(rounded(kernel.astype(np.float32), precision), precision)
    gradient = rounded(random.standard_normal((*pooled, channels_out)).astype(np.float32), precision)
    mask = random.standard_normal((height, width, channels_in)) > 0
    choices = random.integers(0, 4, (*pooled, channels_in)).astype(np.uint8)
    packed = (choices.reshape(*pooled, -1, 4) << np.arange(0, 8, 2, dtype=np.uint8)).sum(3).astype(np.uint8)

    on_device = filters._replace(backward=_held(runtime, filters.backward))
    gradient_held, mask_held = _held(runtime, gradient), _held(runtime, np.packbits(mask, axis=2, bitorder="little"))
    choices_held, out = _held(runtime, packed), _held(runtime, np.zeros(mask.shape, gradient.dtype))
    work = unpool.cut_up(tile, gradient.shape, mask.shape, split_k)
    workspace = runtime.allocate(conv.partial_bytes(work, *pooled, channels_in))
    for launch in unpool.conv3x3_unpooled_gradient(
        gradient_held, on_device, out=out, relu_mask=mask_held, pool_argmax=choices_held, workspace=workspace,
        target=target, work=work,
    ):  # fmt: skip
        runtime.launch(launch)
    reference, expected = Reference(), np.empty(mask.shape)
    exact = reference.pack_filters(exact_kernel, filters.bias)
    exact_gradient = widened(gradient, precision).astype(np.float64)
    reference.conv3x3_unpooled_gradient(exact_gradient, exact, out=expected, relu_mask=mask, pool_argmax=choices)
    return float(np.max(np.abs(widened(runtime.download(out), precision) - expected)) / np.max(np.abs(expected)))


def _gram_test_error(
    runtime: Runtime, target: Target, precision: str, shape: tuple[int, int, int], split_k: int
) -> float:
    """The largest error of the Gram matrix of features of this shape, relative to its largest number."""
    features = rounded(np.random.default_rng(0).standard_normal(shape).astype(np.float32), precision)
    features_held, out = _held(runtime, features), _held(runtime, np.zeros((shape[2], shape[2]), np.float32))
    workspace = runtime.allocate(gram.choose_gram(*shape, split_k).nbytes)
    for launch in gram.gram(features_held, out, workspace, target, split_k):
        runtime.launch(launch)
    expected = np.empty(out.shape)
    Reference().gram(widened(features, precision).astype(np.float64), expected)
    return float(np.max(np.abs(runtime.download(out) - expected)) / np.max(np.abs(expected)))


def _held(runtime: Runtime, values: NDArray[Any]) -> Array:
    room = runtime.allocate(values.nbytes).view(values.dtype).reshape(values.shape)
    runtime.upload(values, room)
    return room


if __name__ == "__main__":  # what `_problem_alone` calls, with the number of a GPU, a precision and a part
    of_part: Part = "unpooling" if sys.argv[3] == "unpooling" else "convolutions"
    print(json.dumps(problem_with(CudaRuntime(int(sys.argv[1]), sys.argv[2]), precisions=(sys.argv[2],), part=of_part)))
