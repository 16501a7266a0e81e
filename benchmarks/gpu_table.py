"""The records of `gpu_sections` as one page of markdown tables. What was measured twice counts as it was at last.

Shares are of the roofline: the least time that the work takes at the rates that PyTorch's matrix product and copy reach
on this very GPU, in the same precision, operation by operation, over the time it took.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpu_goals import CLASSES, SECONDS  # type: ignore[import-not-found]
from gpu_sections import CONVOLUTIONS  # type: ignore[import-not-found]
from gpu_variants import OURS, THEIRS, TWICE, WIDTH  # type: ignore[import-not-found]

Record = Mapping[str, Any]
WAYS = dict(zip(CONVOLUTIONS, ("forward", "input gradient"), strict=True))


def table(records: Sequence[Record], *, dry: bool) -> str:
    """All there is so far."""
    kept = Kept(records)
    parts = [
        ["DRY RUN: the emulator against PyTorch on the CPU, at a tiny size; no time here means anything.", ""] * dry
        + ["# One iteration on the GPU, against PyTorch", ""],
        head(kept),
        summary(kept),
        gradients(kept),
        *(iterations(kept, size) for size in kept.sizes("iteration")),
        memory(kept),
        runs(kept),
        *(layers(kept, size) for size in kept.sizes("operation")),
        *(operations(kept, size) for size in kept.sizes("operation")),
        remarks(kept),
    ]
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


class Kept:
    """The last record of each thing, by kind."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._last: dict[tuple[Any, ...], Record] = {}
        keys = ("event", "size", "group", "name", "layer", "operation", "precision", "shape", "bits", "when", "text",
                "section")  # fmt: skip
        for record in records:
            key = tuple(record.get(name) for name in keys)
            self._last.pop(key, None)
            self._last[key] = record

    def of(self, event: str, **wanted: Any) -> list[Record]:
        return [
            record
            for record in self._last.values()
            if record["event"] == event and all(record.get(name) == value for name, value in wanted.items())
        ]

    def sizes(self, event: str) -> list[int]:
        return sorted({record["size"] for record in self.of(event)})

    @property
    def peaks(self) -> dict[str, float]:
        """FLOP/s by precision. Three products in TF32 make one in 3xTF32."""
        flops = {name: rate for record in self.of("peaks") for name, rate in record["flops"].items()}
        if "tf32" in flops:
            flops["3xtf32"] = flops["tf32"] / 3
        return flops

    def least(self, precision: str, work: Iterable[Sequence[float]]) -> float | None:
        """Seconds that operations of so many FLOP and bytes take on the roofline; None where it was not measured."""
        peak, bandwidth = self.peaks.get(precision), next((r["bandwidth"] for r in self.of("peaks")), None)
        if peak is None or bandwidth is None:
            return None
        return float(sum(max(flops / peak, nbytes / bandwidth) for flops, nbytes in work))

    def rates(self, precision: str, seconds: float, work: Sequence[Sequence[float]]) -> list[str]:
        """TFLOP/s, and the share of the roofline."""
        least = self.least(precision, work)
        flops = sum(one[0] for one in work)
        return [f"{flops / seconds / 1e12:.1f}", "" if least is None else f"{least / seconds:.0%}"]


def rows(title: str, columns: str, lines: Sequence[Sequence[str]], says: str = "") -> list[str]:
    """A table under a heading; nothing where there are no lines."""
    if not lines:
        return []
    count = columns.count("|") + 1
    body = [f"| {' | '.join(line)} |" for line in lines]
    return [f"## {title}", "", *([says, ""] if says else []), f"| {columns} |", "|---" * count + "|", *body, ""]


def head(kept: Kept) -> list[str]:
    lines = []
    for m in kept.of("machine")[:1]:
        versions = [f"{name} {m[key]}" for name, key in (("driver", "driver"), ("PyTorch", "torch"), ("CUDA", "cuda"),
                    ("cuDNN", "cudnn"), ("CuPy", "cupy"), ("Python", "python")) if key in m]  # fmt: skip
        lines += [f"{m['date']}, {m['gpu']}; {', '.join(versions)}.", ""]
    lines += [
        "Made by `python benchmarks/compare_pytorch.py --device cuda`. The work is `both_sides`': one gradient of the "
        "classic cost on VGG-19's shapes with random filters, down to relu5_1, on two pictures. Gradients stay on the "
        "device, and ours includes TV. Times are medians of CUDA events around iterations back to back, all variants "
        "of a group in turn in one process; ± is half the interquartile range. PyTorch is channels_last with "
        "cudnn.benchmark. Shares are of the roofline measured here (`gpu_table`).",
        "",
    ]
    peaks = kept.peaks
    if peaks:
        found = [f"{name} {rate / 1e12:.4g} TFLOP/s" for name, rate in peaks.items() if name != "3xtf32"]
        bandwidth = next((r["bandwidth"] for r in kept.of("peaks")), None)
        found += [] if bandwidth is None else [f"copies {bandwidth / 1e12:.3g} TB/s, read and written"]
        lines += [f"torch.matmul and copy_ here: {', '.join(found)}.", ""]
    return lines


def summary(kept: Kept) -> list[str]:
    """Our best against PyTorch's best, and what was aimed at."""
    lines = []
    for size in kept.sizes("iteration"):
        for name, precisions in CLASSES.items():
            for step in (False, True):
                ours, theirs = (fastest(kept, side, size, precisions, step) for side in (OURS, THEIRS))
                if ours is None:
                    continue
                target = None if step else SECONDS.get((name, size))
                lines.append([
                    f"{size}²", "optimisation step" if step else "gradient", name, milliseconds(ours), ours["name"],
                    *(("", "", "") if theirs is None else
                      (milliseconds(theirs), theirs["name"], f"**{ours['seconds'] / theirs['seconds']:.2f}**")),
                    "" if target is None else f"{target * 1e3:g} ms",
                ])  # fmt: skip
    columns = "size | work | accuracy | nstgpu | which | PyTorch | which | ratio | aimed at"
    return rows("The fastest of each side", columns, lines, "Over all groups; of what was timed twice both count.")


def fastest(kept: Kept, side: str, size: int, precisions: Sequence[str], step: bool) -> Record | None:
    found = [r for r in kept.of("iteration", side=side, size=size, step=step) if r["precision"] in precisions]
    return min(found, key=lambda record: float(record["seconds"]), default=None)


def milliseconds(record: Record) -> str:
    return f"{record['seconds'] * 1e3:.4g} ms ± {record['spread']:.1%}"


def gradients(kept: Kept) -> list[str]:
    lines = [[f"{r['size']}²", r["name"], f"{r['difference']:.1e}"] for r in kept.of("gradient")]
    says = "Relative L2 difference from PyTorch's in strict fp32."
    return rows("Gradients", "size | variant | differs by", lines, says)


def iterations(kept: Kept, size: int) -> list[str]:
    work = {record["bits"]: record["operations"] for record in kept.of("work", size=size)}
    lines = []
    for group in dict.fromkeys(record["group"] for record in kept.of("iteration", size=size)):
        for r in kept.of("iteration", size=size, group=group):
            precision, done = r["precision"], work.get(WIDTH[r["precision"]], ())
            error = "" if r["gram_error"] is None else f"{r['difference']:.1e}"
            rates = kept.rates(precision, r["seconds"], done) if done else ["", ""]
            lines.append([group, r["name"], milliseconds(r), *rates, error, f"{r['rounds']} x {r['iterations']}"])
    says = noise(kept, size)
    columns = "group | variant | time | TFLOP/s | of roofline | gradient differs by | rounds"
    return rows(f"An iteration at {size}²", columns, lines, says)


def noise(kept: Kept, size: int) -> str:
    """How far apart two measurements of the same thing are."""
    found = {r["name"]: r["seconds"] for r in kept.of("iteration", size=size, group="bf16")}
    pairs = [(name, seconds / found[name] - 1) for name in found if (seconds := found.get(name + TWICE))]
    return "The same again: " + ", ".join(f"{name} {apart:+.1%}" for name, apart in pairs) + "." if pairs else ""


def memory(kept: Kept) -> list[str]:
    lines = [
        [f"{r['size']}²", r["name"], *(f"{r[key] / 2**20:.0f} MiB" for key in ("allocator", "driver", "gpu"))]
        for r in kept.of("memory")
    ]
    says = (
        "Each in a process of its own, once warm: the allocator's peak (CuPy's pool, PyTorch's reserved; the trials of "
        "cudnn.benchmark given back before), what the driver has handed out since the context was made, and how much "
        "more of the GPU nvidia-smi shows, context and libraries and all."
    )
    ours, theirs = (fewest(kept, side) for side in (OURS, THEIRS))
    if all(theirs):
        ratios = (f"{mine / other:.2f}" for mine, other in zip(ours, theirs, strict=True))
        says += f" The least of ours in bf16 over the least of PyTorch's: {', '.join(ratios)}."
    return rows("Memory", "size | variant | allocator | driver | nvidia-smi", lines, says)


def fewest(kept: Kept, side: str) -> list[float]:
    """Bytes in bf16, by each of the three measures; zero where there is none."""
    found = kept.of("memory", side=side, precision="bf16")
    return [min((float(r[key]) for r in found), default=0.0) for key in ("allocator", "driver", "gpu")]


def runs(kept: Kept) -> list[str]:
    lines = [
        [f"{r['size']}²", r["name"], f"{r['seconds']:.3f} s", f"{r['seconds'] / r['iterations'] * 1e3:.3g} ms"]
        for r in kept.of("run")
    ]
    says = "By the clock on the wall, the fastest of three; ours from the start image to the picture in host memory."
    return rows("A whole run", "size | variant | time | an iteration", lines, says)


def layers(kept: Kept, size: int) -> list[str]:
    """Convolution by convolution; ratios are ours over theirs."""
    ours = {(r["layer"], r["operation"], r["precision"]): r for r in kept.of("operation", size=size) if r["layer"]}
    theirs = {(r["layer"], r["operation"], r["precision"]): r["seconds"] for r in kept.of("their layer", size=size)}
    pairs = (("bf16", "bf16"), ("3xtf32", "fp32"), ("fp32", "fp32"))
    lines = []
    for layer, operation in dict.fromkeys((layer, operation) for layer, operation, _ in ours):
        cells, kernels, shape = [], "", ""
        for mine, other in pairs:
            record, seconds = ours.get((layer, operation, mine)), theirs.get((layer, operation, other))
            if record is None:
                cells += [""] * 5
                continue
            kernels, shape = kernels or ", ".join(record["kernels"]), record["shape"]
            rates = kept.rates(mine, record["seconds"], [(record["flops"], record["nbytes"])])
            cells += [microseconds(record["seconds"]), *rates]
            cells += ["", ""] if seconds is None else [microseconds(seconds), f"{record['seconds'] / seconds:.2f}"]
        lines.append([layer, WAYS[operation], shape, *cells, kernels])
    titles = [f"{mine} µs | TFLOP/s | share | PyTorch {other} | ratio" for mine, other in pairs]
    says = (
        "Each operation many times over in one graph, on what stays in the cache. Ours includes masks and pools; "
        "PyTorch's is conv2d with relu, and convolution_backward for the input alone. Kernels are those of the first."
    )
    return rows(f"Convolutions at {size}²", f"layer | way | shape | {' | '.join(titles)} | kernels", lines, says)


def operations(kept: Kept, size: int) -> list[str]:
    """Where the rest of our iteration goes, the slowest first."""
    found = [r for r in kept.of("operation", size=size) if not r["layer"]]
    lines = [
        [
            r["precision"], r["operation"], r["shape"], microseconds(r["seconds"]),
            *kept.rates(r["precision"], r["seconds"], [(r["flops"], r["nbytes"])]), ", ".join(r["kernels"]),
        ]
        for precision in dict.fromkeys(r["precision"] for r in found)
        for r in sorted((r for r in found if r["precision"] == precision), key=lambda r: -float(r["seconds"]))
    ]  # fmt: skip
    sums = [
        f"{precision} {sum(r['seconds'] for r in kept.of('operation', size=size, precision=precision)) * 1e3:.3g} ms"
        for precision in dict.fromkeys(r["precision"] for r in found)
    ]
    says = f"Convolutions and these by themselves add up to: {', '.join(sums)}."
    return rows(f"Our other operations at {size}²", "precision | operation | shape | µs | TFLOP/s | share | kernels",
                lines, says)  # fmt: skip


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.4g}"


def remarks(kept: Kept) -> list[str]:
    """What failed, what was warned of, and the state of the GPU along the way."""
    problems = [[r["side"], r["section"], r["name"], r["problem"].replace("|", "/")] for r in kept.of("problem")]
    lines = rows("What failed", "side | section | variant | why", problems)
    notes = [r["text"] for r in kept.of("note")]
    lines += ["## Notes", "", *(f"- {text}" for text in notes), ""] if notes else []
    states = [[r["when"], r["state"]] for r in kept.of("state") if r["state"]]
    return lines + rows("State of the GPU", "when | power state, SM clock, memory clock, power, temperature", states)
