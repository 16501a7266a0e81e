"""Opens the device that a name stands for: "cpu", "cuda:1", or what "auto" finds here."""

import functools
import itertools
import logging

from .cuda import precisions
from .device import Device
from .errors import DeviceError

DEVICES = ("auto", "cuda", "cpu", "reference", "emulator")
PRECISIONS = ("auto", *precisions.PRECISIONS)


def open_device(name: str = "auto", precision: str = "auto", threads: int | None = None) -> Device:
    """The device called `name`, one of DEVICES or "cuda:1" for another GPU than the first, computing in `precision`.

    "auto" is the GPU where there is one that can be used, else the CPU. `threads` is for the CPU: None takes every core
    this process may use. Raises DeviceError for what is not to be had.

    Every device has the precision "fp32". The reference has "fp64", its "auto", as well; cuda and the emulator "tf32"
    and "3xtf32", of convolutions and Grams of float32 activations, and "bf16" and "fp16", whose activations have 16
    bits. On cuda "auto" is bf16 where tensor cores know it (compute capability 8.0 and later), elsewhere fp32.
    """
    kind, _, index = name.partition(":")
    if kind in DEVICES and ("," in index or (kind, index) == ("cuda", "all")):
        raise DeviceError(f"{name} are several devices, which only a run can use; name one")
    if kind not in DEVICES or (index and not (kind == "cuda" and index.isdecimal())):
        raise DeviceError(f"unknown device {name!r}; choose one of {', '.join(DEVICES)}")
    if threads is not None and kind not in ("auto", "cpu"):
        raise DeviceError(f"threads are for the cpu device, not for {kind}")
    if kind == "auto":
        return _open_auto(precision, threads)
    if kind == "cpu":
        from .cpu.device import Cpu

        return Cpu(precision, threads)
    if kind == "reference":
        from .reference import Reference

        return Reference(precision)
    from .cuda.device import CudaDevice
    from .cuda.runtime.cupy_runtime import CudaRuntime
    from .cuda.runtime.emulator_runtime import EmulatorRuntime

    if kind == "cuda":
        return CudaDevice(CudaRuntime(int(index or 0), precision), precision)
    return CudaDevice(EmulatorRuntime("fp32" if precision == "auto" else precision), precision)


def check_names(name: str, precision: str) -> None:
    """Raises DeviceError for names that no device and no precision has; what is to be had here is found on opening."""
    kind = name.partition(":")[0]
    if kind not in DEVICES:
        raise DeviceError(f"unknown device {name!r}; choose one of {', '.join(DEVICES)}")
    if precision not in PRECISIONS:
        raise DeviceError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")


def open_devices(name: str = "auto", precision: str = "auto", threads: int | None = None) -> list[Device]:
    """The devices called `name`: one, as `open_device` takes it, or several of one kind.

    "cuda:0,1" are two GPUs and "cuda:all" is every one; "cpu:0,1" are two of its kind in this process, which share the
    threads evenly; "reference:0,1" and "emulator:0,1" likewise. Raises DeviceError.
    """
    kind, _, listed = name.partition(":")
    if (kind, listed) == ("cuda", "all"):
        from .cuda.runtime import driver

        usable = itertools.takewhile(lambda index: driver.cuda_problem(index) is None, itertools.count())
        return [open_device(f"cuda:{index}", precision) for index in usable] or [open_device("cuda", precision)]
    numbers = listed.split(",")
    if len(numbers) == 1:
        return [open_device(name, precision, threads)]
    if kind not in DEVICES or kind == "auto" or not all(number.isdecimal() for number in numbers):
        raise DeviceError(f"unknown devices {name!r}; several are written like cuda:0,1 or cuda:all")
    if len({int(number) for number in numbers}) < len(numbers):
        raise DeviceError(f"the devices {name} name one of them twice; name each once")
    if kind == "cuda":
        return [open_device(f"cuda:{int(number)}", precision, threads) for number in numbers]
    if kind == "cpu":
        from .cpu.thread_pool import check_threads, default_count

        check_threads(threads)
        threads = max(1, (default_count() if threads is None else threads) // len(numbers))
    return [open_device(kind, precision, threads) for _ in numbers]


def _open_auto(precision: str, threads: int | None) -> Device:
    from .cuda.runtime import driver

    problem = driver.cuda_problem()
    if problem is None:
        try:
            return open_device("cuda", precision)
        except DeviceError as error:
            problem = str(error)
    elif not driver.gpu_is_there():
        return open_device("cpu", precision, threads)
    _say_once(f"the GPU is not used: {problem}")
    return open_device("cpu", precision, threads)


@functools.cache
def _say_once(text: str) -> None:
    logging.getLogger("nstgpu").warning("%s", text)
