"""What is measured on a GPU, section by section, in a process of its own that `gpu_comparison` starts and watches.

Every record is a line of JSON on a pipe, and so is the name of every variant just before it is touched: a kernel that
hangs or takes its process down with it is known by that. Iterations are timed back to back, as many as take
BLOCK_SECONDS; the blocks of all variants take turns. `gpu_variants` has the variants.
"""

import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from both_sides import EVEN, gram_error, to_host  # type: ignore[import-not-found]
from gpu_variants import (  # type: ignore[import-not-found]
    AGAIN,
    DTYPE,
    GROUPS,
    MMA_SYNC,
    OURS,
    REDUCED,
    THEIRS,
    TWICE,
    WIDTH,
    Bench,
    OursHere,
    Setting,
    Variant,
    allow_tf32,
    one_line,
    stepping,
)

from nstgpu.engine.analysis.profile import OPERATIONS, Call, Recorder
from nstgpu.kernels.cuda.device import CudaDevice

BLOCK_SECONDS = 0.04
TURNS_SECONDS = 12.0  # for all the turns of a section
MOST_ITERATIONS = 200  # in a block
LEAST_ROUNDS = 5
LAYER_SECONDS = 0.003  # of a graph that holds one operation many times over
LAYER_ROUNDS = 7
MATRIX = 8192  # rows of the products that the peaks are taken from
COPIED_BYTES = 1 << 32
RUN_ITERATIONS, RUN_SIZE = 500, 512
MEMORY_SIZE = 1024
CONVOLUTIONS = ("conv3x3_relu", "conv3x3_input_gradient")


@dataclass
class InTurn:
    """A variant that is timed in turn with others."""

    variant: Variant
    name: str
    elapsed: Callable[[int], float]
    first: float
    """Seconds of an iteration, roughly."""
    gram_error: float | None
    """Of its gradient from PyTorch's in strict fp32."""
    count: int = 1
    """Iterations in a block."""
    times: list[float] = field(default_factory=list)
    """Seconds of an iteration, by round."""


@dataclass(frozen=True)
class Section:
    """Records of one kind, at one size."""

    kind: str
    size: int = 0
    group: str = ""

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.kind, self.group, self.size or "") if part)


def plan(sizes: Sequence[int]) -> list[Section]:
    """The most telling first, in case time runs out."""
    first = [size for size in (512, 1024) if size in sizes] or list(sizes[:1])
    rest = [size for size in sizes if size not in first]
    memory = MEMORY_SIZE if MEMORY_SIZE in sizes else max(sizes)
    run = RUN_SIZE if RUN_SIZE in sizes else sizes[0]
    return [
        Section("peaks"),
        Section("gradients", min(sizes)),
        *(Section("iteration", size, "bf16") for size in first),
        *(Section("iteration", size, "compiled") for size in first),
        Section("iteration", first[0], "fp32"),
        Section("memory", memory),
        Section("layers", first[0]),
        *(Section("iteration", size, "bf16") for size in rest),
        Section("run", run),
        *(Section("iteration", size, "fp32") for size in (*first[1:], *rest)),
        *(Section("layers", size) for size in (*first[1:], *rest)),
        *(Section("iteration", size, "compiled") for size in rest),
        *(Section("iteration", size, "max-autotune") for size in first),
    ]


def plan_of_goals(sizes: Sequence[int]) -> list[Section]:
    """What the goals ask for, and no more; PyTorch's compiler takes longest, so that the larger size waits."""
    if len(sizes) == 1:
        return [Section("iteration", sizes[0], "goals"), Section("ours", sizes[0], "bf16 3xtf32 tf32")]
    return [
        Section("iteration", 512, "goals"),
        Section("ours", 512, "3xtf32 tf32 fp16"),
        Section("ours", 256, "bf16"),
        Section("ours", 2048, "bf16"),
        Section("iteration", 1024, "goals"),
    ]


def plan_of_memory(sizes: Sequence[int]) -> list[Section]:
    return [Section("memory", MEMORY_SIZE if MEMORY_SIZE in sizes else max(sizes), "bf16")]


def plan_of_operations(sizes: Sequence[int]) -> list[Section]:
    """Every operation by itself, on both sides, and the roofline that they are measured by."""
    return [Section("peaks"), Section("layers", 512 if 512 in sizes else sizes[0])]


PLANS: Mapping[str, Callable[[Sequence[int]], list[Section]]] = {
    "all": plan,
    "goals": plan_of_goals,
    "memory": plan_of_memory,
    "operations": plan_of_operations,
}


# ---- the sections -----------------------------------------------------------------------------------------------
def peaks(bench: Bench) -> None:
    """What PyTorch's own matrix product and copy reach here: the roofline."""
    import torch

    rows, nbytes = (128, 1 << 20) if bench.dry else (MATRIX, COPIED_BYTES)
    found: dict[str, float] = {}
    for name, dtype in (("bf16", "bfloat16"), ("fp16", "float16"), ("tf32", "float32"), ("fp32", "float32")):

        def product(name: str = name, dtype: str = dtype) -> float:
            allow_tf32(name == "tf32")
            a, b = (torch.randn(rows, rows, device=bench.torch_device, dtype=getattr(torch, dtype)) for _ in range(2))
            out = torch.empty_like(a)
            return 2 * rows**3 / best_of(bench, lambda: torch.matmul(a, b, out=out))

        rate = bench.attempt(Variant(THEIRS, name, "matmul"), product)
        if rate is not None:
            found[name] = rate

    def copy() -> float:
        source = torch.randn(nbytes // 4, device=bench.torch_device)
        target = torch.empty_like(source)
        return 2 * nbytes / best_of(bench, lambda: target.copy_(source))

    bandwidth = bench.attempt(Variant(THEIRS, "fp32", "copy"), copy)
    bench.report("peaks", flops=found, bandwidth=bandwidth)


def best_of(bench: Bench, work: Callable[[], object]) -> float:
    """Seconds of one, at the median of five times ten."""
    bench.elapsed(work, 3)
    return float(statistics.median(bench.elapsed(work, 10) / 10 for _ in range(5)))


def gradients(bench: Bench, size: int) -> None:
    """Every precision against PyTorch in strict fp32, and PyTorch's own."""
    setting = Setting(bench, size)
    ours = [Variant(OURS, precision, "launch by launch") for precision in WIDTH]
    ours.append(Variant(OURS, "bf16", MMA_SYNC))
    for variant in (*ours, Variant(THEIRS, "bf16", "eager"), Variant(THEIRS, "tf32", "eager")):

        def compared(variant: Variant = variant) -> float:
            gradient = setting.ready(variant).gradient
            assert gradient is not None, "these are no steps"
            return float(gram_error(gradient(), setting.expected))

        error = bench.attempt(variant, compared)
        if error is not None:
            bench.report("gradient", size=size, side=variant.side, precision=variant.precision, name=variant.name,
                         gram_error=error)  # fmt: skip


def iteration(bench: Bench, size: int, group: str) -> None:
    """A group's variants, in turn."""
    setting = Setting(bench, size)
    found: list[InTurn] = []
    for variant in GROUPS[group]:

        def prepared(variant: Variant = variant) -> InTurn:
            ready = setting.ready(variant)
            error = None if ready.gradient is None else gram_error(ready.gradient(), setting.expected)
            if bench.dry:
                return InTurn(variant, variant.name, ready.elapsed, 0.0, error)
            ready.elapsed(1)
            return InTurn(variant, variant.name, ready.elapsed, ready.elapsed(3) / 3, error)

        one = bench.attempt(variant, prepared)
        if one is not None:
            found.append(one)
            if group == "bf16" and variant.name in AGAIN:
                found.append(replace(one, name=f"{one.name}{TWICE}", times=[]))
    for precision in {WIDTH[v.precision]: v.precision for v in GROUPS[group] if v.side == OURS}.values():
        work(bench, setting, precision)
    timed_in_turn(bench, size, group, found)


def ours(bench: Bench, size: int, precisions: str) -> None:
    """Our own iterations, without PyTorch's, which take so much longer to make ready."""
    setting = Setting(bench, size, EVEN)
    found: list[InTurn] = []
    for precision in precisions.split():
        variant = Variant(OURS, precision, "one graph")

        def prepared(variant: Variant = variant) -> InTurn:
            ready = setting.ready(variant)
            ready.elapsed(1)
            return InTurn(variant, variant.name, ready.elapsed, ready.elapsed(3) / 3, None)

        one = bench.attempt(variant, prepared)
        if one is not None:
            found.append(one)
    timed_in_turn(bench, size, "ours", found)


def timed_in_turn(bench: Bench, size: int, group: str, found: Sequence[InTurn]) -> None:
    """Times them all, and reports each."""
    take_turns(bench, found)
    for one in found:
        if one.times:
            v = one.variant
            bench.report(
                "iteration", size=size, group=group, side=v.side, precision=v.precision, how=v.how, step=v.step,
                name=one.name, gram_error=one.gram_error, iterations=one.count, rounds=len(one.times),
                **spread_of(one.times),
            )  # fmt: skip
    bench.report("state", when=f"after {bench.section}", state=gpu_state())


def take_turns(bench: Bench, found: Sequence[InTurn]) -> None:
    """Fills in the times, in rounds; whoever fails has none."""
    rounds = bench.rounds
    if not bench.dry:
        for one in found:
            one.count = max(3, min(MOST_ITERATIONS, round(BLOCK_SECONDS / max(one.first, 1e-6))))
        seconds = sum(one.count * one.first for one in found)
        rounds = max(LEAST_ROUNDS, min(rounds, int(TURNS_SECONDS / max(seconds, 1e-6))))
    failed: set[str] = set()
    for turn in range(rounds):
        for one in found[:: 1 if turn % 2 else -1]:  # so that no one always follows the same one
            if one.variant.name in failed:
                continue
            seconds = bench.attempt(one.variant, partial(one.elapsed, one.count))
            if seconds is None:
                failed.add(one.variant.name)
            else:
                one.times.append(seconds / one.count)
    for one in found:
        if one.variant.name in failed:
            one.times.clear()


def spread_of(times: Sequence[float]) -> dict[str, float]:
    """Median, and half the interquartile range as a share of it."""
    low, median, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else [times[0]] * 3
    return {"seconds": median, "spread": (high - low) / 2 / median}


# ---- operations by themselves -----------------------------------------------------------------------------------
def recorded(setting: Setting, precision: str) -> list[Call]:
    """The operations of one iteration, with buffers that stay."""
    device = setting.bench.device(precision)
    recorder: Any = Recorder(device, check=False)
    try:
        one = OursHere(recorder, setting.bench.weights, setting.images, setting.balance)
        one.enqueue()
        recorder.calls.clear()
        one.enqueue()
    finally:
        device.on_launch = None
    return list(recorder.calls)


def work_of(call: Call) -> tuple[float, float]:
    """FLOP and bytes that an operation takes at least, as `nstgpu profile` counts them."""
    count, written = OPERATIONS[call.operation]
    nbytes = 0.0
    for name, value in call.arguments.items():
        again = name in written and call.arguments.get("accumulate", False)
        nbytes += getattr(value, "nbytes", 0) * (2 if again else 1)
    return count(call.arguments).flops, nbytes


def work(bench: Bench, setting: Setting, precision: str) -> None:
    """What an iteration must do, operation by operation."""
    variant = Variant(OURS, precision, "operations counted")
    calls = bench.attempt(variant, lambda: recorded(setting, precision))
    if calls is not None:
        bench.report("work", size=setting.size, bits=WIDTH[precision], operations=[work_of(call) for call in calls])


def layers(bench: Bench, size: int) -> None:
    """Each convolution on both sides, and our other operations, each as a graph that holds it many times over."""
    setting = Setting(bench, size)
    for precision in ("bf16", "3xtf32", "fp32"):
        bench.attempt(Variant(OURS, precision, "operations"), partial(our_operations, bench, setting, precision))
        bench.tidy()
    allow_tf32(False)
    for precision in ("bf16", "fp32"):
        for convolution, side in convolutions(bench, size):
            for operation in CONVOLUTIONS:
                seconds = bench.attempt(
                    Variant(THEIRS, precision, f"{convolution.tap} {operation}"),
                    partial(their_layer, bench, convolution, side, DTYPE[precision], operation),
                )
                if seconds is not None:
                    bench.report("their layer", size=size, precision=precision, operation=operation,
                                 layer=convolution.tap, **seconds)  # fmt: skip


def our_operations(bench: Bench, setting: Setting, precision: str) -> None:
    device = bench.device(precision)
    for call, layer, shape in named(bench, recorded(setting, precision)):
        flops, nbytes = work_of(call)
        bench.report(
            "operation", size=setting.size, precision=precision, operation=call.operation, layer=layer, shape=shape,
            kernels=call.kernels, flops=flops, nbytes=nbytes, **our_operation(bench, device, call),
        )  # fmt: skip


def named(bench: Bench, calls: Sequence[Call]) -> Iterator[tuple[Call, str, str]]:
    """Each with its layer where it is a convolution, and its shape. Of an image in one piece."""
    taps = [convolution.tap for convolution, _ in convolutions(bench, 0)]
    order = {CONVOLUTIONS[0]: iter(taps), CONVOLUTIONS[1]: iter(taps[::-1])}
    for call in calls:
        source = next((call.arguments[name] for name in ("x", "gradient", "features", "gram", "image", "vectors")
                       if name in call.arguments), None)  # fmt: skip
        shape = "" if source is None else "x".join(map(str, source.shape))
        yield call, next(order[call.operation]) if call.operation in order else "", shape


def convolutions(bench: Bench, size: int) -> list[tuple[Any, int]]:
    """Down to relu5_1, with the side of what each sees."""
    found, side, block = [], size, 1
    for convolution in bench.weights.convolutions[:13]:
        if convolution.block != block:
            side, block = side // 2, convolution.block
        found.append((convolution, side))
    return found


def our_operation(bench: Bench, device: CudaDevice, call: Call) -> dict[str, float]:
    """Seconds of one of our operations."""
    operation = getattr(device, call.operation)

    def graph_of(count: int) -> Callable[[], float]:
        repeat = device.stream.capture(lambda: [operation(**call.arguments) for _ in range(count)])
        return lambda: device.elapsed(repeat)

    return of_graph(bench, graph_of)


def their_layer(bench: Bench, convolution: Any, side: int, dtype: str, operation: str) -> dict[str, float]:
    """A convolution with its ReLU, or the gradient of its input, on what a ReLU leaves."""
    import torch
    from torch.nn import functional

    real, channels = getattr(torch, dtype), convolution.kernel.shape[2:]

    def random(count: int) -> Any:
        values = torch.randn(1, count, side, side, device=bench.torch_device).relu_()
        return values.to(real, memory_format=torch.channels_last)

    kernel = torch.from_numpy(np.array(convolution.kernel.transpose(3, 2, 0, 1), order="C"))
    kernel = kernel.to(bench.torch_device).to(real, memory_format=torch.channels_last)
    bias = torch.from_numpy(np.array(convolution.bias)).to(bench.torch_device, real)
    x, gradient = random(channels[0]), random(channels[1])

    def forward() -> Any:
        with torch.no_grad():
            return functional.relu(functional.conv2d(x, kernel, bias, padding=1), inplace=True)

    def backward() -> Any:
        return torch.ops.aten.convolution_backward(
            gradient, x, kernel, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, False, False]
        )

    once = forward if operation == CONVOLUTIONS[0] else backward

    def graph_of(count: int) -> Callable[[], float]:
        replay, _ = bench.captured(lambda: [once() for _ in range(count)][-1])
        return lambda: bench.elapsed(replay, 1)

    return of_graph(bench, graph_of)


def of_graph(bench: Bench, graph_of: Callable[[int], Callable[[], float]]) -> dict[str, float]:
    """Seconds of one operation, from graphs that hold it so many times that its launch does not count."""
    few = graph_of(1 if bench.dry else 4)
    few()
    count = 1 if bench.dry else max(4, min(400, round(LAYER_SECONDS / (few() / 4))))
    block = graph_of(count)
    block()
    return spread_of([block() / count for _ in range(2 if bench.dry else LAYER_ROUNDS)])


# ---- a whole run ------------------------------------------------------------------------------------------------
def run(bench: Bench, size: int) -> None:
    """Iterations by the clock on the wall, from the start image to the picture in host memory."""
    setting, iterations = Setting(bench, size), 3 if bench.dry else RUN_ITERATIONS

    def ours() -> list[float]:
        one = setting.ours("bf16")
        return [wall(lambda: one.transfer.run(iterations, scales=1)) for _ in range(1 if bench.dry else 3)]

    def theirs() -> list[float]:
        other = setting.pytorch(DTYPE["bf16"])
        step, average = stepping(other, bench.dry)
        replay, _ = bench.captured(step)

        def all_of_it() -> None:
            for _ in range(iterations):
                replay()
            to_host(average)

        return [wall(all_of_it) for _ in range(1 if bench.dry else 3)]

    for variant, whole in (
        (Variant(OURS, "bf16", f"run({iterations})"), ours),
        (Variant(THEIRS, "bf16", f"{iterations} replays of a CUDA graph with fused Adam"), theirs),
    ):
        seconds = bench.attempt(variant, whole)
        if seconds is not None:
            bench.report("run", size=size, side=variant.side, name=variant.name, iterations=iterations,
                         seconds=min(seconds), all=seconds)  # fmt: skip


def wall(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# ---- memory -----------------------------------------------------------------------------------------------------
MEMORY = (
    Variant(OURS, "bf16", "one graph"),
    Variant(THEIRS, "bf16", "CUDA graph"),
    Variant(THEIRS, "bf16", "eager"),
    Variant(OURS, "3xtf32", "one graph"),
    Variant(OURS, "fp32", "one graph"),
    Variant(THEIRS, "fp32", "eager"),
    REDUCED,
)


def memory(bench: Bench, size: int, group: str = "") -> None:
    """Each variant in a process of its own; those of a group are of one precision, and not compiled."""
    for number, variant in enumerate(MEMORY):
        if group and (variant.precision != group or variant.mode):
            continue
        part = json.dumps({"memory": number, "size": size, "dry": bench.dry})
        script = Path(__file__).with_name("compare_pytorch.py")

        def measured(part: str = part, script: Path = script, within: float = variant.within) -> Any:
            command = [sys.executable, str(script), "--device", "cuda", "--part", part]
            done = subprocess.run(command, capture_output=True, text=True, timeout=within - 10)
            if done.returncode:
                raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
            return json.loads(done.stdout.splitlines()[-1])

        found = bench.attempt(variant, measured)
        if found is not None:
            bench.report("memory", size=size, side=variant.side, precision=variant.precision, name=variant.name,
                         **found)  # fmt: skip


def measure_memory(number: int, size: int, dry: bool) -> None:
    """Prints bytes: of the allocator at its peak, what the driver has given since the context was made, and how much
    more of the GPU is in use, context and all. PyTorch's trials of algorithms come before and do not count."""
    variant = MEMORY[number]
    bench = Bench(lambda *_, **__: None, 1, {}, dry)
    in_use = memory_in_use(dry)
    allocator, free = _allocator(variant.side, dry)
    before = free()
    setting = Setting(bench, size, EVEN)
    ready = setting.ready(variant)
    ready.elapsed(2)
    allocator.settle()
    ready.elapsed(3)
    print(json.dumps({
        "allocator": allocator.peak(), "driver": before - free(), "gpu": memory_in_use(dry) - in_use
    }))  # fmt: skip


class Allocator(NamedTuple):
    settle: Callable[[], object]
    """Forgets what was only tried."""
    peak: Callable[[], int]


def _allocator(side: str, dry: bool) -> tuple[Allocator, Callable[[], int]]:
    """And the bytes that the driver could still give."""
    if dry:
        return Allocator(lambda: None, lambda: 0), lambda: 0
    if side == OURS:
        import cupy

        cupy.cuda.runtime.free(0)  # makes the context
        pool = cupy.get_default_memory_pool()
        return Allocator(lambda: None, pool.total_bytes), lambda: int(cupy.cuda.runtime.memGetInfo()[0])
    import torch

    torch.zeros(1, device="cuda")

    def settle() -> None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    return Allocator(settle, torch.cuda.max_memory_reserved), lambda: int(torch.cuda.mem_get_info()[0])


# ---- the GPU as it is -------------------------------------------------------------------------------------------
def asked(*fields: str) -> str:
    """What nvidia-smi says of the first GPU; empty without it."""
    if not shutil.which("nvidia-smi"):
        return ""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader", "--id=0"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def gpu_state() -> str:
    return asked("pstate", "clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")


def memory_in_use(dry: bool) -> int:
    """Bytes of the GPU, whoever uses them."""
    return 0 if dry else int(asked("memory.used").removesuffix(" MiB") or 0) << 20


def machine(dry: bool) -> dict[str, str]:
    import torch

    facts = {"date": time.strftime("%Y-%m-%d"), "python": sys.version.split()[0], "torch": torch.__version__}
    if dry:
        return {**facts, "gpu": "no GPU: the emulator, and PyTorch on the CPU"}
    import cupy

    return {
        **facts,
        "gpu": asked("name"),
        "driver": asked("driver_version"),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "cupy": cupy.__version__,
    }


# ---- the process that does it -----------------------------------------------------------------------------------
def work_through(part: Mapping[str, Any]) -> int:
    """Works through the sections of `part`, or prints the memory that one variant takes."""
    if "memory" in part:
        measure_memory(part["memory"], part["size"], part["dry"])
        return 0
    os.set_inheritable(part["pipe"], False)
    with os.fdopen(part["pipe"], "w", buffering=1) as pipe:

        def report(event: str, **values: Any) -> None:
            pipe.write(json.dumps({"event": event, **values}) + "\n")

        class Notes(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                report("note", text=record.getMessage())

        logging.getLogger("nstgpu").addHandler(Notes(logging.WARNING))
        report("machine", **machine(part["dry"]))
        report("state", when="before", state=gpu_state())
        bench = Bench(report, part["rounds"], part["without"], part["dry"])
        for kind, size, group in part["sections"]:
            section = Section(kind, size, group)
            bench.section = str(section)
            report("section", name=bench.section)
            try:
                measure(bench, section)
            except Exception as error:  # of no side in particular
                text = one_line(error)
                bench.problem(THEIRS if bench.alive() else OURS, "all", text)
            bench.tidy()
            report("done", name=bench.section)
        report("state", when="after", state=gpu_state())
    return 0


def measure(bench: Bench, section: Section) -> None:
    if section.kind == "peaks":
        peaks(bench)
    elif section.kind == "iteration":
        iteration(bench, section.size, section.group)
    elif section.kind == "ours":
        ours(bench, section.size, section.group)
    elif section.kind == "memory":
        memory(bench, section.size, section.group)
    else:
        {"gradients": gradients, "layers": layers, "run": run}[section.kind](bench, section.size)
