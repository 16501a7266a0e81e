"""A precision is a row in one table, which everything else asks."""

import subprocess
import sys

import pytest

from nstgpu.kernels import calls, open_device
from nstgpu.kernels.cuda import storage
from nstgpu.kernels.cuda.conv3x3 import tile_model
from nstgpu.kernels.cuda.kernel_sets import KERNEL_SETS
from nstgpu.kernels.cuda.precisions import PRECISIONS, on_gpus, on_tensor_cores
from nstgpu.kernels.cuda.runtime import nvrtc
from nstgpu.kernels.errors import DeviceError
from nstgpu.kernels.open import PRECISIONS as NAMES

ANOTHER = """
from nstgpu.kernels.cuda.precisions import ANY, PRECISIONS, KernelSet, Precision
PRECISIONS["fp33"] = Precision("float32", (KernelSet(0, ANY, "SimtKernels"),))

import numpy as np
from nstgpu.cli import options
from nstgpu.kernels import calls
from nstgpu.kernels.open import PRECISIONS as names, check_names, open_device

check_names("emulator", "fp33")
device = open_device("emulator", "fp33")
print(device.precision, device.activation_dtype, "fp33" in names, calls.ACTIVATIONS["fp33"])
"""


def test_adding_one_is_a_row() -> None:
    ran = subprocess.run([sys.executable, "-c", ANOTHER], capture_output=True, text=True)
    assert ran.stdout.split() == ["fp33", "float32", "True", "float32"], ran.stderr


def test_what_is_asked_of_the_table() -> None:
    assert ("auto", *PRECISIONS) == NAMES
    assert {name: str(dtype) for name, dtype in storage.MEMORY.items()} == {
        "tf32": "float32", "3xtf32": "float32", "bf16": "uint16", "fp16": "float16",
    }  # fmt: skip
    assert list(tile_model.PRODUCTS) == on_tensor_cores() == ["tf32", "3xtf32", "bf16", "fp16"]
    assert calls.PRECISIONS == {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}
    assert {kind: PRECISIONS[kind].itemsize for kind in ("fp32", "bf16", "fp64")} == {"fp32": 4, "bf16": 2, "fp64": 8}


def test_all_sets_and_sources_are_there() -> None:
    named = {row.name for precision in PRECISIONS.values() for row in precision.kernel_sets}
    assert named == set(KERNEL_SETS)
    sources = {source for name in PRECISIONS for source in nvrtc.sources_for(name)}
    assert sources == set(nvrtc.SOURCES)
    assert nvrtc.sources_for("auto") == nvrtc.sources_for("bf16")


def test_one_that_no_gpu_has() -> None:
    assert on_gpus() == ("fp32", "tf32", "3xtf32", "bf16", "fp16")
    with pytest.raises(DeviceError, match="no precision 'fp64'; choose fp32, tf32, 3xtf32, bf16 or fp16"):
        open_device("emulator", "fp64")
