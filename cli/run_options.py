"""The options of a run: as values, as the text of a recipe, and as what the library takes.

`Options` is what the command line, a recipe and a checkpoint all come to; `painting` acts on it.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from ..engine.scales import ITERATIONS
from ..engine.wording import counted

if TYPE_CHECKING:
    from ..engine.balance import Layers
    from ..engine.transfer import Style

DEFAULT_SIZE = 512
CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Options:
    """What was asked for; everything that decides what the picture looks like, and where it goes."""

    content: str
    styles: tuple[str, ...]
    """FILE or FILE=WEIGHT."""
    output: str
    size: int | None = None
    iterations: str = str(ITERATIONS)
    min_size: int | None = None
    scales: int | None = None
    average: float | None = None
    weights: str | None = None
    preprocessing: str | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
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
    style_scales: tuple[float, ...] = ()
    style_masks: tuple[str, ...] = ()
    style_regions: tuple[str, ...] = ()
    content_mask: str | None = None
    mask_feather: int = 0
    border: int = 0
    colors: str = "style"
    optimizer: str = "adam"
    learning_rate: float | None = None
    init: str = "content"
    seed: int = 0
    pooling: str | None = None
    depth: int = 8
    quality: int | None = None
    save_every: int | None = None
    animation: str | None = None
    report: str | None = None
    json_file: str | None = None
    checkpoint: str | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    quiet: bool = False
    force: bool = False
    """Whether files that are there already may be overwritten."""


def text_of(options: Options) -> str:
    """The options as a recipe; what says how to watch and where to write is left out."""
    from ..engine import recipe

    watching = {
        "output",
        "save_every",
        "animation",
        "report",
        "json_file",
        "checkpoint",
        "checkpoint_seconds",
        "quiet",
        "force",
    }
    default = asdict(Options("", (), ""))
    chosen = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(options).items()
        if name not in watching and value != default[name]
    }
    return recipe.dump(chosen)


def from_values(values: Mapping[str, Any], **changed: Any) -> Options:
    """The options of a recipe, with some changed; raises SettingsError for what no option is called, or can be."""
    from ..engine.taps import SettingsError

    known = asdict(Options("", (), ""))
    unknown = [name for name in values if name not in known]
    if unknown:
        raise SettingsError(f"the recipe has {unknown[0]!r}, which this version does not know; leave it out")
    hints = get_type_hints(Options)
    for name, value in values.items():
        if not _is_a(value, hints[name]):
            raise SettingsError(f"the recipe has {name} = {value!r}, which that option cannot be; correct or remove it")
    fitting = {name: tuple(value) if isinstance(known[name], tuple) else value for name, value in values.items()}
    return Options(**{**{"content": "", "styles": (), "output": ""}, **fitting, **changed})


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
    from ..engine.scales import MIN_SIZE

    return {
        "iterations": iterations_of(options.iterations),
        "optimizer": options.optimizer,
        "learning_rate": options.learning_rate,
        "min_size": MIN_SIZE if options.min_size is None else options.min_size,
        "scales": options.scales,
        "average": options.average,
    }


def iterations_of(text: str) -> int | list[int]:
    from ..engine.taps import SettingsError

    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise SettingsError(
            f"--iterations {text!r}: give a number for every scale, or a list such as 200,100,50"
        ) from None
    return numbers if len(numbers) > 1 else numbers[0]


def styles_of(options: Options) -> "list[Style]":
    """The styles with their weights, scales, masks and regions, which are given in the same order."""
    from ..engine.taps import SettingsError
    from ..engine.transfer import Style

    if not options.styles:
        raise SettingsError("no style was given; name a picture after the content, or with --style")
    count = len(options.styles)
    each = {"--style-scale": options.style_scales, "--style-mask": options.style_masks}
    each["--style-region"] = options.style_regions
    for name, values in each.items():
        once_for_all = name == "--style-scale" and len(values) == 1
        if len(values) not in (0, count) and not once_for_all:
            without = "" if name == "--style-scale" else ", in their order, with none for a style that has no such file"
            raise SettingsError(
                f"{name} is given {counted(len(values), 'time')} for {counted(count, 'style')}; "
                f"give it once for each{without}"
            )
    scales = options.style_scales * count if len(options.style_scales) == 1 else options.style_scales
    styles = []
    for number, text in enumerate(options.styles):
        path, weight = _split_weight(text)
        styles.append(
            Style(
                path,
                weight,
                scale=scales[number] if number < len(scales) else None,
                mask=_nth(options.style_masks, number),
                region=_nth(options.style_regions, number),
            )
        )
    return styles


def _nth(values: tuple[str, ...], number: int) -> str | None:
    return values[number] if number < len(values) and values[number] != "none" else None


def _split_weight(text: str) -> tuple[str, float]:
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
    from ..engine.taps import SettingsError

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
    from ..engine.taps import SettingsError, canonical

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
