"""The cost at one size of the picture: content, styles and masks brought to that size, and measured."""

from collections.abc import Sequence

from ...kernels.device import Device
from .. import canvas, sizes
from ..checks import check_division
from ..imaging.masks import fit
from ..imaging.resize import resized
from ..inputs import Inputs
from ..model.network import Network
from ..tiling.geometry import Setting
from ..types import Image, Mask
from .known_targets import key_of
from .objective import Objective
from .targets import SizedStyle


class KeptObjective:
    """The objective of the size that was asked for last; another one lets go of its memory."""

    def __init__(self, inputs: Inputs, tile: Setting, others: Sequence[tuple[Device, Network]]) -> None:
        self._inputs, self._tile, self._others = inputs, tile, others
        self._objective: Objective | None = None

    def at(self, size: tuple[int, int]) -> Objective:
        """That of images of (H, W) `size`; another one's memory is let go of first."""
        beyond = 2 * self._inputs.border
        if self._objective is None or self._objective.shape[:2] != (size[0] + beyond, size[1] + beyond):
            self.release()
            self._objective = objective_at(self._inputs, size, self._tile, self._others)
        return self._objective

    def release(self) -> None:
        """Lets go of it, and of the devices' workspaces, which lie in its memory."""
        if self._objective is None:
            return
        self._objective = None
        for device in (self._inputs.device, *(device for device, _ in self._others)):
            device.bind_workspace(device.allocate(0))


def objective_at(
    given: Inputs, size: tuple[int, int], tile: Setting, others: Sequence[tuple[Device, Network]]
) -> Objective:
    """The objective of images of (H, W) `size`, on the inputs' device and the `others`; raises SettingsError where the
    statistics cannot work so."""
    check_division(given.statistics, tile, 1 + len(others))
    share = max(size) / max(given.shape[:2])
    content = resized(given.device, given.content, size)
    places = given.claims.places(size)
    if size == given.shape[:2]:
        given.claims.check(places, sizes.tap_sizes(given, size), given.style_taps)

    def as_seen(pixels: Image) -> Image:
        extended: Image = canvas.extended(given.border, canvas.in_the_networks_colors(given, pixels))
        return extended

    styles = []
    for number, style in enumerate(given.styles):
        own = sizes.style_size(given, style, share)
        region = None if style.region is None else fit(style.region, own, style.region_name)
        pixels = canvas.recolored(given, resized(given.device, style.pixels, own), content, region)
        wanted = {
            None if place.weights is None else at: place.shares[number]
            for at, place in enumerate(places)
            if number in place.shares
        }
        seen, region = as_seen(pixels), canvas.extended(given.border, region)
        styles.append(SizedStyle(style.name, seen, region, wanted, _key(given, seen, region)))
    return Objective(
        given.device,
        given.network,
        as_seen(content),
        styles,
        content_taps=given.content_taps,
        style_taps=given.style_taps,
        places=[canvas.extended(given.border, place.weights) for place in places if place.weights is not None],
        trainable_mask=canvas.extended(given.border, given.claims.painted(size)),
        statistics=given.statistics,
        tuning=given.tuning,
        seed=given.seed,
        reduction=given.reduction,
        tile=tile,
        border=given.border,
        others=others,
        known=given.known,
    )


def _key(given: Inputs, style: Image, region: Mask | None) -> str:
    """Of a style as it is looked at, by which its target is known."""
    if given.known is None:
        return ""
    device, weights = given.device, given.weights
    decides = (
        weights.checksum,
        weights.preprocessing,
        given.network.pooling,
        given.style_taps,
        given.statistics,
        given.tuning,
    )
    return key_of(style, region, *decides, device.name, device.precision, given.seed)
