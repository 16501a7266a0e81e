"""The ways to do one iteration that are compared on a GPU, each made ready to be timed.

Both sides are timed by CUDA events. In a dry run the emulator and PyTorch on the CPU stand in, a graph is plain calls,
and times mean nothing.
"""

import gc
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from both_sides import Pixels, PyTorch, pictures, to_host, transfer, weights_of  # type: ignore[import-not-found]

from nstgpu.engine.memory.arena import Buffer, allocate
from nstgpu.engine.optimizers.adam import Adam
from nstgpu.engine.optimizers.graph_loop import GraphedAdamLoop
from nstgpu.engine.optimizers.loop import OptimizationLoop
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.runtime.cupy_runtime import CudaRuntime
from nstgpu.kernels.cuda.runtime.emulator_runtime import EmulatorRuntime

RATE, BETAS, EPSILON = 0.02, (Adam.beta1, Adam.beta2), Adam.epsilon
DECAY = 0.98  # of the average of the iterates
MOST_STEPS = 100_000
WIDTH = {"bf16": 16, "fp16": 16, "tf32": 32, "3xtf32": 32, "fp32": 32}  # bits of an activation
DTYPE = {"bf16": "bfloat16", "tf32": "float32", "fp32": "float32"}
BROKEN = 3  # exit status: the GPU no longer answers this process
COMPILE_SECONDS = 240.0
WITHIN = 90.0  # seconds after which a variant that has said nothing hangs


class Ready(NamedTuple):
    """A variant that may be timed."""

    elapsed: Callable[[int], float]
    """Seconds that so many iterations take, one right after the other."""
    gradient: Callable[[], Pixels] | None


@dataclass(frozen=True)
class Variant:
    """One way to do the work; `step` is that and Adam's step, the clamp and the average."""

    side: str
    precision: str
    how: str
    step: bool = False
    mode: str = ""
    """Of torch.compile."""
    within: float = WITHIN

    @property
    def name(self) -> str:
        return f"{self.side} {self.precision}, {self.how}"


OURS = "nstgpu"
THEIRS = "PyTorch"
MMA_SYNC = "one graph, mma.sync alone"
COMPILED = Variant(THEIRS, "bf16", "torch.compile, CUDA graph", mode="default", within=COMPILE_SECONDS)
REDUCED = Variant(THEIRS, "bf16", "torch.compile reduce-overhead", mode="reduce-overhead", within=COMPILE_SECONDS)
AUTOTUNED = Variant(
    THEIRS, "bf16", "torch.compile max-autotune, CUDA graph", mode="max-autotune-no-cudagraphs", within=COMPILE_SECONDS
)
GROUPS: Mapping[str, tuple[Variant, ...]] = {
    "bf16": (
        Variant(OURS, "bf16", "one graph"),
        Variant(THEIRS, "bf16", "CUDA graph"),
        Variant(OURS, "bf16", "launch by launch"),
        Variant(THEIRS, "bf16", "eager"),
        Variant(OURS, "bf16", "step", step=True),
        Variant(THEIRS, "bf16", "CUDA graph with fused Adam", step=True),
        Variant(OURS, "bf16", MMA_SYNC),
        Variant(OURS, "fp16", "one graph"),
    ),
    "compiled": (
        Variant(OURS, "bf16", "one graph"),
        Variant(THEIRS, "bf16", "CUDA graph"),
        COMPILED,
        REDUCED,
    ),
    "goals": (
        Variant(OURS, "bf16", "one graph"),
        Variant(THEIRS, "bf16", "CUDA graph"),
        COMPILED,
    ),
    "max-autotune": (
        Variant(OURS, "bf16", "one graph"),
        Variant(THEIRS, "bf16", "CUDA graph"),
        AUTOTUNED,
    ),
    "fp32": (
        Variant(OURS, "3xtf32", "one graph"),
        Variant(THEIRS, "fp32", "CUDA graph"),
        Variant(OURS, "fp32", "one graph"),
        Variant(THEIRS, "fp32", "eager"),
        Variant(OURS, "tf32", "one graph"),
        Variant(THEIRS, "tf32", "CUDA graph"),
        Variant(THEIRS, "tf32", "eager"),
    ),
}
TWICE = ", again"
AGAIN = ("nstgpu bf16, one graph", "PyTorch bf16, CUDA graph")  # timed twice in "bf16", to show the noise


# ---- both sides at one size -------------------------------------------------------------------------------------
class OursHere:
    """Our objective on one device, ready to be enqueued."""

    def __init__(self, device: CudaDevice, weights: Any, of: Any, balance: Any) -> None:
        self.device = device
        self.transfer = transfer(weights, of, device, balance=balance)
        self.objective = self.transfer.objective()
        self.image = self.buffer(of[2])

    def buffer(self, pixels: Pixels) -> Any:
        (image,) = allocate(self.device, [Buffer("image", pixels.shape, self.device.image_dtype, 0, 0)]).values()
        self.device.upload(pixels, image)
        return image

    def enqueue(self) -> None:
        self.objective.enqueue(self.image, self.objective.gradient)

    def gradient(self) -> Pixels:
        values: Pixels = self.device.download(self.objective.gradient)
        return values


@dataclass
class Bench:
    """What the sections share: the weights, the devices that are open, and the way out for records."""

    report: Callable[..., None]
    rounds: int
    without: Mapping[str, str]
    dry: bool
    weights: Any = None
    section: str = ""
    _devices: dict[str, CudaDevice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.weights = weights_of("thin" if self.dry else "vgg19")
        self.torch_device = "cpu" if self.dry else "cuda"
        if self.dry:
            import torch

            torch.set_num_threads(1)  # a pool of threads takes longer than the work

    def device(self, precision: str, *, wgmma: bool | None = None) -> CudaDevice:
        """The same one every time; wgmma: see `CudaDevice`."""
        key = f"{precision} {wgmma}"
        if key not in self._devices:
            runtime = EmulatorRuntime(precision) if self.dry else CudaRuntime(0, precision)
            self._devices[key] = CudaDevice(runtime, precision, wgmma=wgmma)
        return self._devices[key]

    # ---- PyTorch --------------------------------------------------------------------------------------------
    def elapsed(self, work: Callable[[], object], count: int) -> float:
        """Seconds that `count` times PyTorch's `work` takes."""
        if self.dry:
            began = time.perf_counter()
            for _ in range(count):
                work()
            return time.perf_counter() - began
        import torch

        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(count):
            work()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def captured(self, work: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        """PyTorch's `work` as a CUDA graph, and its result, which every replay writes anew."""
        if self.dry:
            return work, work()
        import torch

        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = work()

        def replay(_kept: Any = (work, result)) -> None:  # a graph does not keep what it writes to
            graph.replay()

        return replay, result

    def compiled(self, other: Any, mode: str) -> Any:
        """PyTorch's cost, whose constants are not copied for every iteration."""
        import torch

        torch._dynamo.reset()
        for constant in other.constants:
            torch._dynamo.mark_static_address(constant)
        if self.dry:
            return torch.compile(other.cost, dynamic=False, backend="aot_eager")
        return torch.compile(other.cost, dynamic=False, mode=mode)

    def synchronize(self) -> None:
        if not self.dry:
            import torch

            torch.cuda.synchronize()

    def tidy(self) -> None:
        """Gives back what the last section held."""
        gc.collect()
        if not self.dry:
            import cupy
            import torch

            torch.cuda.empty_cache()
            cupy.get_default_memory_pool().free_all_blocks()

    # ---- what fails -----------------------------------------------------------------------------------------
    def attempt(self, variant: Variant, work: Callable[[], Any]) -> Any:
        """What `work` returns; None, and a record that says why, if it fails."""
        if variant.name in self.without:
            return self.problem(variant.side, variant.name, self.without[variant.name])
        self.report("at", name=variant.name, within=variant.within)
        try:
            result = work()
            self.synchronize()
            return result
        except Exception as error:
            text = one_line(error)
        if self.alive():
            self.tidy()
        else:
            self.report("died", name=variant.name, problem=text)
            os._exit(BROKEN)  # nothing in this process can use the GPU any more, not even to clean up
        return self.problem(variant.side, variant.name, text)

    def alive(self) -> bool:
        if self.dry:
            return True
        import torch

        try:
            torch.ones(1, device="cuda").add(1).item()
        except RuntimeError:
            return False
        return True

    def problem(self, side: str, name: str, text: str) -> None:
        self.report("problem", section=self.section, side=side, name=name, problem=text)


class Setting:
    """Images of one size, the weights of the cost, and the gradient that all others are compared with."""

    def __init__(self, bench: Bench, size: int, balance: Any = None) -> None:
        self.bench, self.size, self.images = bench, size, pictures(size)
        self._pytorch: dict[str, Any] = {}
        self._ours: dict[str, OursHere] = {}
        allow_tf32(False)
        self.balance = balance or PyTorch(bench.weights, self.images, bench.torch_device).balance()

    @cached_property
    def expected(self) -> Pixels:
        """By PyTorch in strict fp32."""
        allow_tf32(False)
        values: Pixels = to_host(self.pytorch("float32").gradient())
        return values

    def pytorch(self, dtype: str) -> Any:
        if dtype not in self._pytorch:
            bench = self.bench
            self._pytorch[dtype] = PyTorch(bench.weights, self.images, bench.torch_device, dtype, self.balance)
        return self._pytorch[dtype]

    def ours(self, precision: str, *, wgmma: bool | None = None) -> OursHere:
        key = f"{precision} {wgmma}"
        if key not in self._ours:
            device = self.bench.device(precision, wgmma=wgmma)
            self._ours[key] = OursHere(device, self.bench.weights, self.images, self.balance)
        return self._ours[key]

    def ready(self, variant: Variant) -> Ready:
        return self._ready_ours(variant) if variant.side == OURS else self._ready_theirs(variant)

    def _ready_ours(self, variant: Variant) -> Ready:
        one = self.ours(variant.precision, wgmma=False if variant.how == MMA_SYNC else None)
        device = one.device
        one.enqueue()
        if variant.step:
            image, average = one.buffer(self.images[2]), one.buffer(self.images[2])
            adam = Adam(device, self.images[2].shape, RATE)
            loop = OptimizationLoop(device, adam, image, average, DECAY)
            steps = GraphedAdamLoop(loop, adam, one.objective, device.stream, MOST_STEPS).iterate()
            return Ready(lambda count: device.elapsed(lambda: [next(steps) for _ in range(count)]), None)
        once = one.enqueue if variant.how == "launch by launch" else device.stream.capture(one.enqueue)

        def gradient() -> Pixels:
            device.zero(one.objective.gradient)
            once()
            return one.gradient()

        return Ready(lambda count: device.elapsed(lambda: [once() for _ in range(count)]), gradient)

    def _ready_theirs(self, variant: Variant) -> Ready:
        bench, tf32 = self.bench, variant.precision == "tf32"
        allow_tf32(tf32)
        other = self.pytorch(DTYPE[variant.precision])
        if variant.step:
            replay, _ = bench.captured(stepping(other, bench.dry)[0])
            return Ready(lambda count: bench.elapsed(replay, count), None)
        work = other.gradient
        if variant.mode:
            work = compiled_gradient(other, bench.compiled(other, variant.mode), variant.mode)
            for _ in range(3):
                work()
        if "CUDA graph" not in variant.how:

            def eager() -> Any:
                allow_tf32(tf32)
                return work()

            return Ready(lambda count: bench.elapsed(eager, count), lambda: to_host(eager()))
        replay, result = bench.captured(work)

        def gradient() -> Pixels:
            replay()
            return to_host(result)

        return Ready(lambda count: bench.elapsed(replay, count), gradient)


def compiled_gradient(other: Any, cost: Any, mode: str) -> Callable[[], Any]:
    import torch

    def work() -> Any:
        if mode == "reduce-overhead":  # what the last iteration returned may be overwritten
            torch.compiler.cudagraph_mark_step_begin()
        return other.gradient(cost=cost)

    return work


def stepping(other: Any, dry: bool) -> tuple[Callable[[], None], Any]:
    """The gradient, Adam, the clamp and the average, as our run has them; and that average."""
    import torch

    image = other.image.detach().clone(memory_format=torch.preserve_format).requires_grad_(True)
    average = image.detach().clone(memory_format=torch.preserve_format)
    adam = torch.optim.Adam([image], lr=RATE, betas=BETAS, eps=EPSILON, fused=True, capturable=not dry)

    def step() -> None:
        image.grad = other.gradient(image).contiguous(memory_format=torch.channels_last)
        adam.step()
        with torch.no_grad():
            image.clamp_(0, 1)
            average.lerp_(image, 1 - DECAY)

    return step, average


def allow_tf32(allowed: bool) -> None:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:240]
