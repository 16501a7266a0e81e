"""How far it is from a run to a launched convolution, for somebody who reads along."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from nstgpu.engine.transfer import StyleTransfer
from nstgpu.kernels.cuda.runtime.emulator_runtime import EmulatorRuntime
from nstgpu.weights import Weights

MOST_FILES = 8


def test_from_a_run_to_a_launched_convolution(thin: Callable[..., Weights]) -> None:
    """With one device and one tile, the calls on the way lie in few files."""
    image = np.random.default_rng(0).random((32, 32, 3)).astype(np.float32)
    transfer = StyleTransfer(image, image[::-1], weights=thin(), device="emulator")
    paths = []

    def see(frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or frame.f_code is not EmulatorRuntime.launch.__code__:
            return
        files, functions, caller = list[str](), set[str](), frame.f_back
        while caller is not None and caller.f_code is not StyleTransfer.run.__code__:
            files.append(Path(caller.f_code.co_filename).name)
            functions.add(caller.f_code.co_name)
            caller = caller.f_back
        if caller is not None and "conv3x3_relu" in functions:
            paths.append(("transfer.py", *reversed(files), "emulator_runtime.py"))

    sys.setprofile(see)
    try:
        transfer.run(iterations=1, scales=1)
    finally:
        sys.setprofile(None)
    assert paths
    for path in paths:
        assert len(set(path)) <= MOST_FILES, " -> ".join(dict.fromkeys(path))
