"""What may change while a run goes on: settings by name, and their text in a recipe, a checkpoint and `--change`.

    250 style_weight=20000.0 tv_weight=1.0

has the iterations after the 250th, counted over all scales, go with these settings. Lists are `style_scales=0.5,1.0`,
what is to be measured again is `none`, and `250 stop` ends the run there. One line is one change, whole or not at all.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from ..engine.wording import quoted
from .checks import check_tuning
from .settings import EITHER, MOST_ITERATIONS, TUNING, Options, Settings, checked, layers_of, styles_of, tuning_of

if TYPE_CHECKING:
    from ..weights import Weights

STEPS = ("learning_rate",)
WEIGHTS = ("content_weight", "style_weight", "tv_weight")
LAYERS = ("content_layers", "content_ws", "style_layers", "style_lambdas")
MEASURED = ("style_scales", "style_sizes", "colors", "statistics", *TUNING)
"""What the pictures have to be measured anew for; the optimizer starts afresh then, from the picture as it is."""
SIZE = "size"
"""One scale more, up to this long side; all scales before it stay as they are."""
CHANGEABLE = (*WEIGHTS, *STEPS, *LAYERS, *MEASURED, SIZE)
STOP = "stop"
NONE = "none"
MOST_CHANGES = 200
MOST_CHARACTERS = 1 << 15
"""Of all changes of a run, as a recipe has to hold them."""


@dataclass(frozen=True)
class Change:
    """One change of a run."""

    iteration: int
    """Done when it comes, over all scales."""
    values: Mapping[str, Any]
    """By setting, at least one; none of them ends the run."""

    def __str__(self) -> str:
        told = [f"{name}={_text(value)}" for name, value in self.values.items()]
        return " ".join([str(self.iteration), *(told or [STOP])])


def changes_of(options: Options) -> tuple[Change, ...]:
    """The changes that the options tell of, in their order; raises SettingsError for what can't be."""
    from ..engine.errors import SettingsError

    check_room(options.changes)
    changes = tuple(parsed(text) for text in options.changes)
    for before, after in pairwise(changes):
        if after.iteration < before.iteration or not before.values:
            raise SettingsError(f"the change {str(after)!r} stands after {str(before)!r}; put them in their order")
    settings = options
    for change in changes:
        settings = applied(settings, change.values)
        check(settings)
    return changes


def check_room(texts: tuple[str, ...]) -> None:
    """Raises SettingsError for more changes than a recipe holds."""
    from ..engine.errors import SettingsError

    if len(texts) > MOST_CHANGES or sum(map(len, texts)) > MOST_CHARACTERS:
        raise SettingsError(
            f"a run can be changed {MOST_CHANGES} times, in {MOST_CHARACTERS} characters, which its recipe holds; "
            "begin another with these settings"
        )


def parsed(text: str) -> Change:
    """The change that a text tells of; raises SettingsError."""
    from ..engine.errors import SettingsError

    shown = quoted(text)
    number, *pairs = text.split() or [""]
    if not (number.isascii() and number.isdecimal() and 0 < int(number[:12]) <= MOST_ITERATIONS) or not pairs:
        raise SettingsError(f"the change {shown}: write ITERATION NAME=VALUE, as in '250 style_weight=2e4'")
    if pairs == [STOP]:
        return Change(int(number), {})
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name in values:
            raise SettingsError(f"the change {shown}: {pair[:40]!r} is no NAME=VALUE, or a second one of that name")
        values[name] = _value(name, value, shown)
    return Change(int(number), fitting(values, f"the change {shown}"))


def fitting(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Values as a recipe or JSON has them, as fields of `Settings`; raises SettingsError for what may not change."""
    from ..engine.errors import SettingsError

    for name, value in values.items():
        if name not in CHANGEABLE:
            raise SettingsError(
                f"{source}: {str(name)[:40]!r} does not change while a run goes on; these do: {', '.join(CHANGEABLE)}"
            )
        if name == SIZE and value is None:
            raise SettingsError(f"{source}: the size must be a number of pixels")
        for text in value if isinstance(value, list | tuple) else (value,):
            if isinstance(text, str) and len(text.split()) != 1:
                raise SettingsError(f"{source}: {name} is {text[:40]!r}; it must be one word")
    if not values:
        raise SettingsError(f"{source} says nothing; name at least one setting")
    for one, other in EITHER:
        if values.get(one) and values.get(other):
            raise SettingsError(f"{source}: {one} and {other} are two ways to say one thing; choose one of them")
    return checked(values, Settings, source)


def applied(options: Options, values: Mapping[str, Any]) -> Options:
    """The options with these values; the size is that of the scales to come, and not of these."""
    from ..engine.costs.statistics import registry

    fields: dict[str, Any] = {name: value for name, value in values.items() if name != SIZE}
    for one, other in EITHER:
        for new, old in ((one, other), (other, one)):
            if fields.get(new) and old not in fields and isinstance(getattr(options, old), tuple):
                fields[old] = ()  # the other way of saying it
    options = replace(options, **fields)
    if "statistics" not in fields:
        return options
    used = registry.used(tuning_of(*(getattr(options, name) for name in TUNING)), options.statistics)
    fields = {name: None for name, own in TUNING.items() if own not in used}
    return replace(options, **fields)


def check(options: Options, network: "Weights | None" = None) -> None:
    """Raises SettingsError for settings that can't be, as far as it can be said without measuring; with the network,
    also for layers that it lacks.
    """
    from ..engine import balance
    from ..engine.checks import check_choices
    from ..engine.optimizers import registry

    check_choices(options.content_reduction, options.statistics, options.colors, options.pooling or "max")
    check_tuning(options.statistics, *(getattr(options, name) for name in TUNING))
    registry.check(options.optimizer, options.learning_rate)
    for name in WEIGHTS:
        balance.checked(name, getattr(options, name))
    for what, relative, exact in (
        ("content", options.content_layers, options.content_ws),
        ("style", options.style_layers, options.style_lambdas),
    ):
        layers = layers_of(relative, exact, what)
        if network is not None and layers is not None:
            balance.wanted(what, layers, network)
    styles_of(options)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value)) or NONE
    return NONE if value is None else repr(value) if isinstance(value, float) else str(value)


def _value(name: str, text: str, shown: str) -> Any:
    """A value from its text, by the type that the setting has; what is no setting is left for others to refuse."""
    from ..engine.errors import SettingsError

    hint = get_type_hints(Settings).get(name, str)
    several, kinds = get_origin(hint) is tuple, get_args(hint) or (hint,)
    if text == NONE and (several or type(None) in kinds):
        return () if several else None
    kind = next((kind for kind in (float, int) if kind in kinds), str)
    try:
        values = [kind(part) for part in (text.split(",") if several else [text])]
        if any(isinstance(value, float) and not math.isfinite(value) for value in values):
            raise ValueError
    except ValueError:
        raise SettingsError(f"the change {shown}: {name} is {text[:40]!r}, which is no number") from None
    return tuple(values) if several else values[0]
