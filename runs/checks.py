"""What can be said of a run's options before anything is loaded: values, names of layers, files that are not there.

What depends on the pictures or the weights is left to the library, whose own checks come later.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .files import INIT_WORDS
from .settings import LIMITS, TUNING, Options, iterations_of, layers_of, settled_of

if TYPE_CHECKING:
    from ..engine.transfer import Style


def check_options(options: Options, styles: "list[Style]") -> None:
    """Raises SettingsError, ImageError or DeviceError, each one line that names the option and what it may be."""
    from ..engine import balance
    from ..engine.checks import check_choices
    from ..engine.optimizers import registry
    from ..engine.optimizers.loop import check_average, check_noise
    from ..engine.tiling import geometry as tiles
    from ..kernels.open import check_names

    _check_limits(options)
    check_choices(options.content_reduction, options.statistics, options.colors, options.pooling or "max")
    check_tuning(options.statistics, options.match_every, options.style_turns, options.directions)
    registry.spec(options.optimizer)
    with named("--learning-rate"):
        registry.check(options.optimizer, options.learning_rate)
    with named("--average"):
        check_average(options.average)
    with named("--tile"):
        tiles.check(tiles.setting(options.tile))
    with named("--noise"):
        check_noise(options.noise)
    with named("--settled-fall"):
        settled_of(options)
    check_names(options.device, options.precision)
    for name in ("content_weight", "style_weight", "tv_weight"):
        balance.checked(f"--{name.replace('_', '-')}", getattr(options, name))
    layers_of(options.content_layers, options.content_ws, "content")
    layers_of(options.style_layers, options.style_lambdas, "style")
    _check_iterations(options)
    for style in styles:
        with named("--style FILE=W"):
            _above_zero(f"the weight of the style {style.picture}", style.weight)
        if style.scale is not None:
            _above_zero("--style-scale", style.scale)
        if style.size is not None:
            _above_zero("--style-size", style.size)
    _check_inputs(options, styles)


def check_tuning(statistics: str, *given: int | None) -> None:
    """Raises SettingsError, with the option's name, for what style statistics cannot have set, or do not look at."""
    from ..engine.costs.statistics.registry import check_used
    from ..engine.costs.statistics.tuning import Tuning

    for (option, name), value in zip(TUNING.items(), given, strict=True):
        if value is not None:
            with named(f"--{option.replace('_', '-')}"):
                check_used(Tuning(**{name: value}), statistics, [name])


@contextmanager
def named(option: str) -> Iterator[None]:
    """What the library says of a value that it can't have, with the option before it."""
    from ..engine.errors import SettingsError

    try:
        yield
    except SettingsError as error:
        raise SettingsError(f"{option}: {error}") from error


def _check_limits(options: Options) -> None:
    from ..engine.errors import SettingsError

    if options.depth not in (8, 16):
        raise SettingsError(f"--depth is {options.depth}; it must be 8 or 16")
    for name, (low, high) in LIMITS.items():
        value = getattr(options, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and not low <= number <= high and name != "threads":  # which are told of otherwise
                option = f"--{name.replace('_', '-').removesuffix('s')}" if isinstance(value, tuple) else f"--{name}"
                raise SettingsError(f"{option.replace('_', '-')} is {number}; it must be {low} to {high}")


def _check_iterations(options: Options) -> None:
    from ..engine.errors import SettingsError
    from ..engine.optimizers.scales import MOST_ITERATIONS, at_each

    for number in at_each(iterations_of(options.iterations), count=2):
        if number < 1:
            raise SettingsError(f"--iterations {options.iterations}: at least 1 is needed at every scale")
        if number > MOST_ITERATIONS:
            raise SettingsError(f"--iterations {options.iterations}: at most {MOST_ITERATIONS:,} at every scale")


def _above_zero(what: str, value: float) -> None:
    from ..engine.errors import SettingsError

    if not 0 < value < math.inf:
        raise SettingsError(f"{what} is {value}; it must be a finite number above zero")


def _check_inputs(options: Options, styles: "list[Style]") -> None:
    """That the files are there; what is in them is found out when they are read."""
    from ..engine.errors import SettingsError
    from ..engine.imaging.files import ImageError

    if options.init not in INIT_WORDS and not _is_there(options.init):
        raise SettingsError(
            f"--init {options.init!r} is neither {', '.join(INIT_WORDS[:-1])} or {INIT_WORDS[-1]}, nor a picture that "
            "is there"
        )
    named = [(options.content, "the content"), *((str(style.picture), "the style") for style in styles)]
    named += [(mask, "the mask") for mask in options.style_masks if mask != "none"]
    named += [(region, "the region") for region in options.style_regions if region != "none"]
    named += [(options.content_mask, "the content mask")] if options.content_mask else []
    if [options.init, *(path for path, _ in named)].count("-") > 1:
        raise SettingsError("standard input (-) is named twice, and is one picture; give the other as a file")
    for path, what in named:
        file, equals, number = path.rpartition("=")
        if what == "the style" and equals and not _is_there(path) and _is_there(file):
            raise SettingsError(f"--style {path}: {number!r} is not a number; write FILE=NUMBER")
        if not _is_there(path):
            raise ImageError(f"there is no file {path}; give {what} as the path of a picture")


def _is_there(path: str) -> bool:
    """Whether there is such a file, as far as it is for this place to say: what is no plain path is the reader's."""
    return path == "-" or "://" in path or os.path.exists(path)
