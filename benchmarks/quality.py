"""How good pictures are: painted with each style statistic, judged by a network that nobody optimised, and plotted.

    python benchmarks/quality.py paint FOLDER --weights VGG19.h5 --images DATA/images --device cuda --precision bf16
    python benchmarks/quality.py judge FOLDER --images DATA/images --judge DATA/weights/vgg19_cd16x.h5
    python benchmarks/quality.py plot FOLDER
    python benchmarks/quality.py sheet FOLDER

Every step writes lines of JSON into FOLDER and skips what is there, so that it can be broken off and gone on with.

`paint`: ten pairs of pictures, each with several statistics and several weights of the style, which are factors on the
weight that is measured. All have the time that `gram` takes with --iterations at each scale: the others' iterations
follow from their pace on the first pair (`--seconds 0` measures no more than that, and several processes may then paint
other pairs into the same FOLDER). With `--equal-iterations` each comes once more, with as many as `gram`. Three further
curves are the classic schedule, at one scale from the content: Adam for the same time, L-BFGS for as many iterations as
that (it takes longer on a GPU, and alike on a CPU), and L-BFGS for the same time.
`judge` is described in `quality_judge`, `plot` and `sheet` in `quality_curves`.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PAIRS = [
    (content, style)
    for content in ("tubingen", "astronaut", "coffee", "content")
    for style in ("starry_night", "the_scream", "style")
    if (content, style) not in (("tubingen", "style"), ("coffee", "style"))
]
"""Names of files without their suffixes; "content" and "style" are those of examples/."""
FACTORS = (1.0, 0.01, 0.1, 0.001, 0.03, 0.003)
"""On the measured weight of the style, the most important first."""


ENCODING: dict[str, dict[str, Any]] = {"png": {"compress_level": 1}, "jpg": {"quality": 85, "subsampling": 0}}
"""JPEG adds 2% to the style distance of a picture at 0.14, with colors at half the resolution 11%."""
judging: Any = None
"""The judge, in a process that judges."""


@dataclass(frozen=True)
class Variant:
    """A way to paint: settings of `StyleTransfer`, and arguments of its `run`."""

    name: str
    settings: dict[str, Any]
    run: dict[str, Any] = field(default_factory=dict)
    iterations_of: str | None = None
    """The variant that says how many iterations; None: as many as there is time for."""


CLASSIC = (
    Variant("gram, Adam, one scale", {"style_statistics": "gram"}, {"scales": 1}),
    Variant(
        "gram, L-BFGS, one scale",
        {"style_statistics": "gram"},
        {"scales": 1, "optimizer": "lbfgs"},
        "gram, Adam, one scale",
    ),
    Variant("gram, L-BFGS, one scale, equal time", {"style_statistics": "gram"}, {"scales": 1, "optimizer": "lbfgs"}),
)


def pair_name(content: str, style: str) -> str:
    return f"{content}+{style}"


def pair_of(record: dict[str, Any]) -> str:
    return pair_name(record["content"], record["style"])


def picture_file(stem: str, images: Path) -> Path:
    """The file that a name of PAIRS stands for."""
    if stem in ("content", "style"):
        return EXAMPLES / f"{stem}.jpg"
    return next(path for folder in ("content", "style") for path in sorted((images / folder).glob(f"{stem}.*")))


def lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines, which need not exist; a last line that was cut off counts for nothing."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def keep(path: Path, record: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def variants_of(options: argparse.Namespace) -> list[Variant]:
    """In the order of the command line; gram, whose time the others get, comes first."""
    from nstgpu.engine.costs.statistics import registry

    names = options.statistics.split(",") if options.statistics else list(registry.STATISTICS)
    named = [Variant(name, {"style_statistics": name}) for name in names]
    given = [Variant(name, json.loads(settings)) for name, settings in options.variant or []]
    if options.equal_iterations:
        others = [variant for variant in (*named, *given) if variant.name != "gram"]
        given += [replace(one, name=f"{one.name}, gram's iterations", iterations_of="gram") for one in others]
    reference = [] if "gram" in names else [Variant("gram", {"style_statistics": "gram"})]
    return [*reference, *named, *given, *([] if options.no_classic else CLASSIC)]


# ---- paint -----------------------------------------------------------------------------------------------------------
def paint(options: argparse.Namespace) -> None:
    import nstgpu
    from nstgpu.engine.imaging import files
    from nstgpu.kernels.open import open_device

    ends = time.monotonic() + options.seconds
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    device = open_device(options.device, options.precision)
    weights = nstgpu.load_weights(options.weights)
    variants, painted = variants_of(options), {record["name"] for record in lines(folder / "paintings.jsonl")}
    pairs = [pair for pair in PAIRS if not options.pairs or pair_name(*pair) in options.pairs.split(",")]
    pairs = pairs[: options.first] if options.first else pairs

    read = {stem: files.read(picture_file(stem, options.images)) for pair in pairs for stem in pair}

    def transfer(pair: tuple[str, str], variant: Variant, **settings: Any) -> nstgpu.StyleTransfer:
        content, style = (read[stem] for stem in pair)
        common = {"weights": weights, "device": device, "size": options.size}
        return nstgpu.StyleTransfer(content, style, **common, **variant.settings, **settings)

    counts = calibrated(folder, transfer, pairs[0], variants, options.iterations)
    measured: dict[tuple[tuple[str, str], str], float] = {}
    for factor in options.factors:
        for variant in variants:
            for pair in pairs:
                name = f"{pair_name(*pair)} / {variant.name} / {factor:g}"
                if name in painted or variant.name not in counts:
                    continue
                if time.monotonic() > ends:
                    print(f"stopped after {options.seconds:g} s, before {name}")
                    return
                key = pair, json.dumps(variant.settings)
                if key not in measured:
                    measured[key] = transfer(pair, variant).style_weight
                began = time.perf_counter()
                work = transfer(pair, variant, style_weight=factor * measured[key])
                result = work.run(counts[variant.name], **variant.run)
                seconds = time.perf_counter() - began
                file = f"{name.replace(' / ', '__').replace(' ', '_').replace(',', '')}.{options.format}"
                pixels = np.rint(np.clip(result.image, 0, 1) * 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / file, **ENCODING[options.format])
                record = {
                    "name": name,
                    "content": pair[0],
                    "style": pair[1],
                    "variant": variant.name,
                    "factor": factor,
                    "file": file,
                    "size": options.size,
                    "iterations": counts[variant.name],
                    "seconds": seconds,
                    "of_them_iterating": sum(scale.seconds for scale in result.scales),
                    "weights": weights.name,
                    "device": device.name,
                    "precision": device.precision,
                }
                keep(folder / "paintings.jsonl", record)
                print(f"{name}: {record['of_them_iterating']:.2f} s of {seconds:.2f} s", flush=True)


def calibrated(
    folder: Path, transfer: Any, pair: tuple[str, str], variants: Sequence[Variant], iterations: int
) -> dict[str, int]:
    """Iterations at each scale by which every variant takes as long as gram, by name; those that fail are left out."""
    file = folder / "paces.jsonl"
    paces = {record["variant"]: record for record in lines(file)}
    for variant in variants:
        if variant.name in paces:
            continue
        try:
            work = transfer(pair, variant)
            work.run(4, **variant.run)  # compiles what has to be
            record = {"variant": variant.name, "pace": pace(work, variant, max(15, iterations // 2))}
        except Exception as error:  # one that cannot work on this device keeps nobody else from it
            record = {"variant": variant.name, "problem": f"{type(error).__name__}: {error}"}
        keep(file, record)
        print(record, flush=True)
        paces[variant.name] = record
    if "problem" in paces["gram"]:
        raise SystemExit(f"gram, whose time the others get, cannot be painted: {paces['gram']['problem']}")
    reference = paces["gram"]["pace"]
    counts = {
        name: iterations if name == "gram" else max(1, round(iterations * reference / record["pace"]))
        for name, record in paces.items()
        if "pace" in record
    }
    for variant in variants:
        if variant.iterations_of in counts and variant.name in counts:
            counts[variant.name] = counts[variant.iterations_of]
    return counts


def pace(work: Any, variant: Variant, iterations: int) -> float:
    """Seconds for one iteration at every scale, without the first few, which a graph is made in."""
    moments: dict[int, list[float]] = {}
    work.run(iterations, **variant.run, on_iteration=lambda p: moments.setdefault(p.scale, []).append(p.seconds))
    skipped = iterations // 3
    return sum((times[-1] - times[skipped]) / (len(times) - 1 - skipped) for times in moments.values())


# ---- the command line ------------------------------------------------------------------------------------------------
def judge(options: argparse.Namespace) -> None:
    done = {record["name"] for record in lines(options.folder / "judged.jsonl")}
    todo = [record for record in lines(options.folder / "paintings.jsonl") if record["name"] not in done]
    todo.sort(key=pair_of)  # targets are kept from one to the next
    began = time.monotonic()
    with ProcessPoolExecutor(options.jobs, initializer=open_judge, initargs=(options.judge,)) as pool:
        verdicts = pool.map(verdict, todo, repeat(options.folder), repeat(options.images), chunksize=4)
        for record, found in zip(todo, verdicts, strict=True):
            keep(options.folder / "judged.jsonl", {"name": record["name"], **found})
    print(f"{len(todo)} pictures judged in {time.monotonic() - began:.0f} s")


def open_judge(weights: Path) -> None:
    """In each process that judges."""
    from quality_judge import Judge  # type: ignore[import-not-found]

    global judging
    judging = Judge(weights, weights.with_name(f"{weights.stem}_aux.npz"))


def verdict(record: dict[str, Any], folder: Path, images: Path) -> dict[str, dict[str, float]]:
    content, style = (picture_file(record[what], images) for what in ("content", "style"))
    found: dict[str, dict[str, float]] = judging.verdict(folder / record["file"], content, style)
    return found


def joined(folder: Path) -> Iterator[dict[str, Any]]:
    """What was painted, with its verdict."""
    verdicts = {record["name"]: record for record in lines(folder / "judged.jsonl")}
    for record in lines(folder / "paintings.jsonl"):
        if record["name"] in verdicts:
            yield {**record, **verdicts[record["name"]]}


def plot(options: argparse.Namespace) -> None:
    from quality_curves import plots, table  # type: ignore[import-not-found]

    records = list(joined(options.folder))
    for measure in ("sliced", "gram"):
        print(table(records, measure, options.against))
    plots(records, options.folder)


def sheet(options: argparse.Namespace) -> None:
    from quality_curves import overview, sheets

    records = lines(options.folder / "paintings.jsonl")
    if options.pairs:
        records = [record for record in records if pair_of(record) in options.pairs.split(",")]
    if options.factor is None:
        sheets(records, options.folder, options.width, options.variants)
    else:
        overview(records, options.folder, options.width, options.factor, options.variants)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(required=True)
    for step in (paint, judge, plot, sheet):
        one = steps.add_parser(step.__name__)
        one.set_defaults(step=step)
        one.add_argument("folder", type=Path)
        if step in (paint, judge):
            one.add_argument("--images", type=Path, required=True, help="folder with content/ and style/")
        if step is paint:
            one.add_argument("--weights", required=True)
            one.add_argument("--device", default="auto")
            one.add_argument("--precision", default="auto")
            one.add_argument("--size", type=int, default=384)
            one.add_argument("--iterations", type=int, default=100, help="of gram, at each scale")
            one.add_argument("--statistics", help="with commas between them; all by default")
            one.add_argument("--variant", nargs=2, action="append", metavar=("NAME", "SETTINGS"), help="JSON")
            one.add_argument("--no-classic", action="store_true", help="without the classic schedules")
            one.add_argument("--equal-iterations", action="store_true", help="each also with gram's iterations")
            one.add_argument("--factors", type=lambda text: [float(part) for part in text.split(",")], default=FACTORS)
            one.add_argument("--pairs", help="content+style,...")
            one.add_argument("--first", type=int, help="so many of the pairs")
            one.add_argument("--seconds", type=float, default=float("inf"), help="begins no picture after them")
            one.add_argument("--format", choices=tuple(ENCODING), default="png")
        elif step is judge:
            one.add_argument("--judge", type=Path, required=True, help="FILE.h5, with FILE_aux.npz beside it")
            one.add_argument("--jobs", type=int, default=1, help="processes")
        elif step is plot:
            one.add_argument("--against", default="gram", help="the variant that the table compares with")
        else:
            one.add_argument("--width", type=int, default=256, help="of each picture")
            one.add_argument("--pairs", help="content+style,...")
            one.add_argument("--factor", type=float, help="one sheet of all pairs, at this weight of the style")
            one.add_argument("--variants", type=lambda text: text.split(";"), help="with semicolons between them")
    options = parser.parse_args()
    options.step(options)


if __name__ == "__main__":
    main()
