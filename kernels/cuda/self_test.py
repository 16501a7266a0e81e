"""Whether Hopper's kernels compute what they should here: each runs once on a small layer, against the reference.

`problem_with` does that; nobody should use them on a GPU where `known_problem`, which asks it in a process of its own
and remembers the answer, has something to say.
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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cache import cache_directory, cached, digest
from ..device import Array
from ..errors import DeviceError, OutOfMemoryError
from ..reference import Reference
from .conv3x3 import launch_wgmma_sm90 as conv
from .gpu_spec import MULTIPROCESSORS
from .gram import launch_wgmma_sm90 as gram
from .runtime import tensor_map
from .runtime.cupy_runtime import CudaRuntime
from .runtime.nvrtc import FOLDER, cubin_key, find_nvrtc
from .runtime.protocol import Runtime
from .runtime.tensor_map import Element, Target, target_of
from .storage import rounded, widened

_log = logging.getLogger("nstgpu")

# Tiles, channels and steps that end within a box, and more than one of each; and channels that fill it.
SELF_TEST_SHAPES = ((19, 21, 72, 136), (17, 33, 64, 128))
SELF_TEST_BOUND = {"bf16": 2.0**-7, "fp16": 2.0**-10}  # twice what rounding the result takes, of the largest
GRAM_TEST_SHAPES = ((31, 29, 56), (13, 31, 136))  # for each tile: likewise, and more steps than stages
GRAM_TEST_BOUND = 2.0**-16  # sums of a few hundred terms in fp32
SELF_TEST_SECONDS = 120  # in which a kernel that never ends is given up


_MODULES = [Path(str(module.__file__)) for module in (conv, gram, tensor_map, sys.modules[__name__])]


def known_problem(runtime: Runtime, element: Element) -> str | None:
    """`problem_with` these kernels in one element type, found out without harm.

    On a GPU in a process of its own, whatever becomes of that; the answer is kept on disk, beside the compiled kernels,
    for as long as kernels, driver and this module stay the same. A test that could not be carried out is a problem too,
    but is not kept.
    """
    if not isinstance(runtime, CudaRuntime):
        return problem_with(runtime, runtime.spec.multiprocessors, (element,))
    index = runtime.allocate(1).data.device_id

    def produce(target: Path) -> None:
        target.write_text(json.dumps(_problem_alone(index, element)))

    try:
        key = _self_test_key(element, runtime.architecture)
        problem: str | None = json.loads(cached(cache_directory("cubin"), key, ".json", produce).content)
    except (OSError, DeviceError) as error:
        return f"they could not be tested: {error}"
    return problem


def _self_test_key(element: Element, architecture: str) -> str:
    """Names all that the answer depends on."""
    version = ctypes.c_int()
    tensor_map.driver().cuDriverGetVersion(ctypes.byref(version))
    sources = (FOLDER / "instantiations" / f"sm90_{element}.cu", FOLDER / "gram" / "simt.cu")
    kernels = [cubin_key(find_nvrtc().version, source, architecture) for source in sources]
    return digest(repr((kernels, version.value)).encode() + b"".join(module.read_bytes() for module in _MODULES))


def _problem_alone(index: int, element: Element) -> str | None:
    """`problem_with` as another process finds it; raises DeviceError or OSError where that comes to no answer."""
    _log.info("testing the kernels for tensor cores (first run only)")
    command = [sys.executable, "-m", __name__, str(index), element]
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
    runtime: Runtime, multiprocessors: int = MULTIPROCESSORS, elements: Sequence[Element] = ("bf16", "fp16")
) -> str | None:
    """What is wrong with these kernels on this runtime, in one line; None if they compute what they should.

    Runs each kernel of every tile once, forward and backward, and of the Gram matrix, in these element types, against
    float64. A fault of a kernel (a trap, an illegal access) makes a GPU unusable for the whole process: call this in
    one of its own first.
    """
    target = target_of(runtime, multiprocessors)
    for element in elements:
        tests: list[tuple[str, float, Callable[[int], float]]] = [
            (f"tile {tile.variant}", SELF_TEST_BOUND[element],
             functools.partial(_self_test_error, runtime, target, element, tile, shape))
            for tile in conv.TILES for shape in SELF_TEST_SHAPES
        ]  # fmt: skip
        tests += [
            (f"gram {tile.variant}", GRAM_TEST_BOUND,
             functools.partial(_gram_test_error, runtime, target, element, shape))
            for tile, shape in zip(gram.GRAM_TILES, GRAM_TEST_SHAPES, strict=True)
        ]  # fmt: skip
        for what, bound, test in tests:
            for slices in (1, 2):
                try:
                    error = test(slices)
                except OutOfMemoryError:
                    raise  # which says nothing of the kernels
                except DeviceError as problem:
                    return f"{what} in {element}: {problem}"
                if not error <= bound:  # so that a NaN is a problem
                    return f"{what} in {element}, {slices} slices: off by {error:.2g} of the largest value"
    return None


def _self_test_error(
    runtime: Runtime, target: Target, element: Element, tile: conv.Tile, shape: tuple[int, int, int, int], slices: int
) -> float:
    """The largest error of activations and input gradients, masked and added to what is there, relative to the largest
    of each."""
    height, width, channels_in, channels_out = shape
    random = np.random.default_rng(0)
    kernel = random.standard_normal((3, 3, channels_in, channels_out)) / (3 * np.sqrt(channels_in))
    filters = conv.pack_filters(kernel.astype(np.float32), np.zeros(channels_out, np.float32), element)
    x = rounded(random.standard_normal((height, width, channels_in)).astype(np.float32), element)
    gradient = rounded(random.standard_normal((height, width, channels_out)).astype(np.float32), element)

    held = functools.partial(_held, runtime)
    on_device = filters._replace(
        forward=held(filters.forward), backward=held(filters.backward), bias=held(filters.bias)
    )
    mask = random.standard_normal(x.shape) > 0
    x_held, gradient_held, mask_held = held(x), held(gradient), held(np.packbits(mask, axis=2, bitorder="little"))
    y, back = held(np.zeros_like(gradient)), held(x)
    forward = conv.cut_up(tile, height, width, channels_in, channels_out, slices)
    backward = conv.cut_up(tile, height, width, channels_out, channels_in, slices)
    needs = (
        conv.partial_bytes(forward, height, width, channels_out),
        conv.partial_bytes(backward, height, width, channels_in),
    )
    workspace = runtime.allocate(max(needs))
    for launch in (
        *conv.conv3x3_relu(x_held, on_device, out=y, mask=None, pooling="max", pooled=None, choice=None,
                      workspace=workspace, target=target, work=forward),
        *conv.conv3x3_input_gradient(gradient_held, on_device, out=back, mask=mask_held, accumulate=True,
                                workspace=workspace, target=target, work=backward),
    ):  # fmt: skip
        runtime.launch(launch)

    reference = Reference()
    exact = reference.pack_filters(
        widened(filters.forward, element).transpose(1, 2, 0).reshape(kernel.shape), filters.bias
    )
    expected_y = np.empty(gradient.shape)
    expected_back = widened(x, element).astype(np.float64)
    reference.conv3x3_relu(widened(x, element).astype(np.float64), exact, out=expected_y, mask=None, pooling="max",
                           pooled=None, choice=None)  # fmt: skip
    reference.conv3x3_input_gradient(widened(gradient, element).astype(np.float64), exact, out=expected_back,
                                     mask=mask, accumulate=True)  # fmt: skip
    return max(
        float(np.max(np.abs(widened(runtime.download(ours), element) - expected)) / np.max(np.abs(expected)))
        for ours, expected in ((y, expected_y), (back, expected_back))
    )


def _gram_test_error(
    runtime: Runtime, target: Target, element: Element, shape: tuple[int, int, int], slices: int
) -> float:
    """The largest error of the Gram matrix of features of this shape, relative to its largest number."""
    features = rounded(np.random.default_rng(0).standard_normal(shape).astype(np.float32), element)
    features_held, out = _held(runtime, features), _held(runtime, np.zeros((shape[2], shape[2]), np.float32))
    workspace = runtime.allocate(gram.choose_gram(*shape, slices).nbytes)
    for launch in gram.gram(features_held, out, workspace, target, slices):
        runtime.launch(launch)
    expected = np.empty(out.shape)
    Reference().gram(widened(features, element).astype(np.float64), expected)
    return float(np.max(np.abs(runtime.download(out) - expected)) / np.max(np.abs(expected)))


def _held(runtime: Runtime, values: NDArray[Any]) -> Array:
    room = runtime.allocate(values.nbytes).view(values.dtype).reshape(values.shape)
    runtime.upload(values, room)
    return room


if __name__ == "__main__":  # what `_problem_alone` calls, with the number of a GPU and an element type
    chosen: Element = "fp16" if sys.argv[2] == "fp16" else "bf16"
    print(json.dumps(problem_with(CudaRuntime(int(sys.argv[1]), chosen), elements=(chosen,))))
