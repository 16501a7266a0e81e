"""The options of a run: as values, as the text of a recipe, and as what the library takes.

`Options` is what the command line, a recipe and a checkpoint all come to; `painting` acts on it.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from ..engine.optimizers.scales import ITERATIONS
from ..engine.wording import counted, quoted

if TYPE_CHECKING:
    from ..engine.balance import Layers
    from ..engine.costs.statistics.tuning import Tuning
    from ..engine.optimizers.scales import Iterations
    from ..engine.optimizers.settling import Settled
    from ..engine.transfer import Style

DEFAULT_SIZE = 512
CHECKPOINT_SECONDS = 30.0

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {"size_at_most": 256, "iterations": "40"},
    "best": {"size_at_most": 1024, "iterations": "300"},
}
"""Options under one name; size_at_most is --size where the content is no smaller."""


def described(preset: str) -> str:
    """ "--size 256 (or the content's if smaller), --iterations 40"."""
    chosen = PRESETS[preset]
    return f"--size {chosen['size_at_most']} (or the content's if smaller), --iterations {chosen['iterations']}"


@dataclass(frozen=True)
class Settings:
    """What decides what the picture looks like, and is the recipe's. Nothing of it says where anything is written:
    recipes come from others."""

    content: str = ""
    styles: tuple[str, ...] = ()
    """FILE or FILE=WEIGHT."""
    size: int | None = None
    size_at_most: int | None = None
    """A preset's, where `size` is left open: the content is not enlarged."""
    iterations: str = str(ITERATIONS)
    min_size: int | None = None
    scales: int | None = None
    average: float | None = None
    stop_when_settled: bool = False
    settled_fall: float | None = None
    weights: str | None = None
    weights_sha256: str | None = None
    """`Weights.checksum` of the weights that it must be, wherever they lie; only recipes and checkpoints say it."""
    preprocessing: str | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    """Sums are cut up among them, so their number decides the last bits."""
    tile: str = "auto"
    content_weight: float | None = None
    style_weight: float | None = None
    tv_weight: float | None = None
    content_layers: tuple[str, ...] = ()
    style_layers: tuple[str, ...] = ()
    """NAME or NAME=W, relative to the balance."""
    content_ws: tuple[str, ...] = ()
    style_lambdas: tuple[str, ...] = ()
    """NAME=V, the formula's own numbers."""
    content_reduction: str = "mean"
    statistics: str = "gram"
    match_every: int | None = None
    style_turns: int | None = None
    directions: int | None = None
    style_scales: tuple[float, ...] = ()
    style_sizes: tuple[int, ...] = ()
    style_masks: tuple[str, ...] = ()
    style_regions: tuple[str, ...] = ()
    content_mask: str | None = None
    mask_feather: int = 0
    border: int = 0
    colors: str = "style"
    optimizer: str = "adam"
    learning_rate: float | None = None
    init: str = "content"
    noise: float = 0.0
    seed: int = 0
    pooling: str | None = None
    depth: int = 8
    quality: int | None = None
    changes: tuple[str, ...] = ()
    """What changes while the run goes on, as `runs.changes` spells it."""


@dataclass(frozen=True)
class Options(Settings):
    """All that was asked for: what the picture looks like, where it and its side outputs go, and how to get there."""

    output: str = ""
    no_recipe: bool = False
    """Whether the picture goes without its recipe."""
    relative_paths: bool = False
    """Whether the recipe has paths, from the picture's folder, instead of names alone."""
    save_every: int | None = None
    animation: str | None = None
    report: str | None = None
    json_file: str | None = None
    checkpoint: str | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    quiet: bool = False
    force: bool = False
    """Whether files that are there already may be overwritten."""


EITHER = (
    ("size", "size_at_most"),
    ("stop_when_settled", "settled_fall"),
    ("style_scales", "style_sizes"),
    ("content_layers", "content_ws"),
    ("style_layers", "style_lambdas"),
)
"""Two ways of saying one thing."""
LIMITS: dict[str, tuple[int, int]] = {
    "size": (1, 1 << 20),
    "size_at_most": (1, 1 << 20),
    "style_sizes": (1, 1 << 20),
    "min_size": (1, 1 << 20),
    "scales": (1, 1 << 10),
    "border": (0, 1 << 16),
    "mask_feather": (0, 1 << 20),
    "seed": (0, (1 << 63) - 1),
    "match_every": (1, 10**6),
    "style_turns": (1, 4),
    "directions": (1, 256),
    "quality": (1, 100),
    "threads": (1, 256),
    "save_every": (1, 1 << 32),
}
"""What the numbers of a recipe or a checkpoint lie between; those of the command line too, since they become one."""
MOST_ITERATIONS = 10**9
LONGEST_TEXT = 4096


def checked(values: Mapping[str, Any], kind: type[Settings], source: str) -> dict[str, Any]:
    """The values of a recipe or a checkpoint, as fields of `kind`; `source` is how messages call it.

    Raises SettingsError for what no field is called, or can be.
    """
    from ..engine.errors import SettingsError

    known = {field.name: field.default for field in fields(kind)}
    hints = get_type_hints(kind)
    fitting = {}
    for name, value in values.items():
        if name not in known:
            if name in {field.name for field in fields(Options)}:
                raise SettingsError(f"{source} has {name!r}, which a recipe may not say; give it as an option instead")
            raise SettingsError(f"{source} has {quoted(name)}, which this version does not know; leave it out")
        if not _is_a(value, hints[name]) or not _is_within(name, value):
            raise SettingsError(
                f"{source} has {name} = {quoted(value)}, which that option cannot be; correct or remove it"
            )
        fitting[name] = tuple(value) if isinstance(known[name], tuple) else value
    return fitting


def _is_within(name: str, value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_within(name, item) for item in value)
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT and "\0" not in value
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, bool) or value is None:
        return True
    low, high = LIMITS.get(name, (-(1 << 63), 1 << 63))
    return bool(low <= value <= high)


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a recipe's value is of an option's type; sequences are lists there, and whole numbers do for floats."""
    choices = get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(_is_a(item, choices[0]) for item in value)
    if choices:
        return any(_is_a(value, choice) for choice in choices)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)


# ---- options to what the library takes --------------------------------------------------------------------------


def method_of(options: Options) -> dict[str, Any]:
    from ..engine.optimizers.scales import MIN_SIZE

    return {
        "iterations": iterations_of(options.iterations),
        "optimizer": options.optimizer,
        "learning_rate": options.learning_rate,
        "min_size": MIN_SIZE if options.min_size is None else options.min_size,
        "scales": options.scales,
        "average": options.average,
        "settled": settled_of(options),
    }


TUNING = {"match_every": "match_every", "style_turns": "turns", "directions": "directions"}
"""What is set of style statistics: the options, and what the library calls them."""


def tuning_of(match_every: int | None, style_turns: int | None, directions: int | None) -> "Tuning":
    """None takes the default; raises SettingsError for what none of these can be."""
    from ..engine.costs.statistics.tuning import Tuning

    given = zip(TUNING.values(), (match_every, style_turns, directions), strict=True)
    return Tuning(**{name: value for name, value in given if value is not None})


def settled_of(options: Options) -> "Settled | None":
    from ..engine.optimizers.settling import Settled

    if options.settled_fall is not None:
        return Settled(options.settled_fall)
    return Settled() if options.stop_when_settled else None


def iterations_of(text: str) -> "Iterations":
    """ "100", "200,100,50" or "100..50"."""
    from ..engine.errors import SettingsError
    from ..engine.optimizers.scales import FromTo

    falling = text.count("..") == 1
    parts = text.split(".." if falling else ",")
    if not all(part.strip().isdecimal() and len(part.strip()) < 10 for part in parts):
        raise SettingsError(
            f"--iterations {text[:40]!r}: give a number for every scale, 100..50 from the first scale to the last, "
            f"or a list such as 200,100,50; at most {MOST_ITERATIONS - 1:,}"
        )
    numbers = [int(part) for part in parts]
    if falling:
        return FromTo(*numbers)
    return numbers if len(numbers) > 1 else numbers[0]


def styles_of(options: Options) -> "list[Style]":
    """The styles with their weights, scales, masks and regions, which are given in the same order."""
    from ..engine.errors import SettingsError
    from ..engine.transfer import Style

    if not options.styles:
        raise SettingsError("no style was given; name a picture after the content, or with --style")
    count = len(options.styles)
    each = {"--style-scale": options.style_scales, "--style-mask": options.style_masks}
    each |= {"--style-size": options.style_sizes, "--style-region": options.style_regions}
    for name, values in each.items():
        once_for_all = name == "--style-scale" and len(values) == 1
        if len(values) not in (0, count) and not once_for_all:
            without = {
                "--style-mask": ", in their order, with none for a style that is wanted everywhere",
                "--style-region": ", in their order, with none for a style of which all is to be looked at",
            }.get(name, "")
            raise SettingsError(
                f"{name} is given {counted(len(values), 'time')} for {counted(count, 'style')}; "
                f"give it once for each{without}"
            )
    if options.style_scales and options.style_sizes:
        raise SettingsError("--style-scale and --style-size are both given; choose one of them")
    scales = options.style_scales * count if len(options.style_scales) == 1 else options.style_scales
    sizes = options.style_sizes * count if len(options.style_sizes) == 1 else options.style_sizes
    styles = []
    for number, text in enumerate(options.styles):
        path, weight = split_weight(text)
        styles.append(
            Style(
                path,
                weight,
                scale=scales[number] if number < len(scales) else None,
                size=sizes[number] if number < len(sizes) else None,
                mask=_nth(options.style_masks, number),
                region=_nth(options.style_regions, number),
            )
        )
    return styles


def _nth(values: tuple[str, ...], number: int) -> str | None:
    return values[number] if number < len(values) and values[number] != "none" else None


def split_weight(text: str) -> tuple[str, float]:
    """ "b.jpg=0.3" -> "b.jpg", 0.3; a file that is called so is taken as it is."""
    path, _, weight = text.rpartition("=")
    if not path or Path(text).exists():
        return text, 1.0
    try:
        return path, float(weight)
    except ValueError:
        return text, 1.0  # no such file, as reading it will say


def layers_of(relative: tuple[str, ...], exact: tuple[str, ...], cost: str) -> "Layers":
    """What --style-layer and --style-lambda (or their like for the content's `cost`) say, as the library takes it."""
    from ..engine.balance import Relative
    from ..engine.errors import SettingsError

    layer, formula = {"content": ("--content-layer", "--content-w"), "style": ("--style-layer", "--style-lambda")}[cost]
    if relative and exact:
        raise SettingsError(
            f"{layer} and {formula} are both given; {layer} NAME=W multiplies the balanced weight, "
            f"{formula} NAME=V is the formula's own: choose one of them"
        )
    if exact:
        return _numbered(exact, formula, None)
    return Relative(_numbered(relative, layer, 1.0)) if relative else None


def _numbered(given: tuple[str, ...], option: str, default: float | None) -> dict[str, float]:
    """("relu1_1=2", "block2_conv1") -> {"relu1_1": 2.0, "relu2_1": 1.0}; without a default every name needs a number.

    Names are checked as far as they can be without the weights.
    """
    from ..engine.errors import SettingsError
    from ..engine.model.taps import canonical

    numbered: dict[str, float] = {}
    for text in given:
        name, equals, number = text.partition("=")
        if "," in text:
            parts = " ".join(f"{option} {part.strip()}" for part in text.split(",") if part.strip())
            raise SettingsError(f"{option} {text!r} is more than one layer; repeat the option: {parts}")
        if not equals and default is None:
            raise SettingsError(f"{option} {text!r} has no number; write NAME=NUMBER, as in {option} {name}=0.2")
        try:
            value = float(number) if equals else default
        except ValueError:
            raise SettingsError(f"{option} {text!r}: {number!r} is not a number; write NAME=NUMBER") from None
        tap = canonical(name)
        if tap in numbered:
            raise SettingsError(f"layer {name!r} is given twice; name it once, with the weight it should have")
        if value is None or not 0 <= value < float("inf"):
            raise SettingsError(f"{option} {text!r}: the number must be finite, zero or more")
        numbered[tap] = value
    return numbered


def is_same_file(path: str | Path, other: str | Path) -> bool:
    """Whether both are there and are one file, whatever they are called."""
    return os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)
