"""Where the network is tapped: the canonical names `reluB_I`, their alias `blockB_convI`, and the classic choice."""

import re
from collections.abc import Iterable, Mapping

from ..errors import SettingsError

STYLE_TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT_TAP = ("relu4_2",)

_NAME = re.compile(r"(?:relu(\d+)_(\d+)|block(\d+)_conv(\d+))")


def canonical(name: str) -> str:
    """ "block4_conv2" and "relu4_2" -> "relu4_2"."""
    match = _NAME.fullmatch(name.strip())
    if not match:
        raise SettingsError(f"unknown layer {name!r}; {_remedy(name)}")
    block, index = (part for part in match.groups() if part)
    return f"relu{int(block)}_{int(index)}"


def _remedy(name: str) -> str:
    """What to write instead, where another program's name for a layer can be made out."""
    numbers = re.fullmatch(r"\s*(?:conv|relu|block)?_?(\d)[_.\- ]?(?:conv|relu)?_?(\d)\s*", name, re.IGNORECASE)
    if numbers and numbers[1] != "0" and numbers[2] != "0":
        return f"write 'relu{numbers[1]}_{numbers[2]}', the convolution's output after its ReLU"
    if re.fullmatch(r"\s*(?:max|avg|average)?_?pool\D*\d\s*", name, re.IGNORECASE):
        return "pools are no layers here; take the ReLU before it, named like relu1_2"
    if "," in name or len(name.split()) > 1:
        return "give several layers one by one, each named like relu1_1"
    return "layers are named like relu1_1 or block1_conv1"


def resolve(layers: Mapping[str, float] | Iterable[str], available: tuple[str, ...], source: str) -> dict[str, float]:
    """Canonical names and weights of the layers asked for, in the network's order; a name alone has weight 1.

    Raises SettingsError for a name that the weights called `source` do not reach, or a weight that is no finite
    number >= 0; layers of weight zero are left out.
    """
    wanted: dict[str, float] = {}
    pairs = layers.items() if isinstance(layers, Mapping) else ((name, 1.0) for name in layers)
    for name, weight in pairs:
        tap = canonical(name)
        if tap not in available:
            raise SettingsError(f"layer {name!r} is not in the weights {source}, which has {', '.join(available)}")
        if not 0 <= float(weight) < float("inf"):
            raise SettingsError(f"the weight of layer {name!r} is {weight}; it must be a finite number, zero or more")
        if tap in wanted:
            raise SettingsError(f"layer {name!r} is given twice; name it once, with the weight it should have")
        wanted[tap] = float(weight)
    return {tap: wanted[tap] for tap in available if wanted.get(tap)}


def classic_style(available: tuple[str, ...]) -> tuple[str, ...]:
    """The classic style layers that the weights reach."""
    return tuple(tap for tap in STYLE_TAPS if tap in available)


def classic_content(available: tuple[str, ...]) -> tuple[str, ...]:
    """The classic content layer, or the deepest before it that the weights reach."""
    return tuple(tap for tap in available if _depth(tap) <= _depth(CONTENT_TAP[0]))[-1:]


def _depth(tap: str) -> tuple[int, int]:
    block, index = tap.removeprefix("relu").split("_")
    return int(block), int(index)
