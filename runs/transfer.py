"""A run's options, and what the engine makes of them: a `StyleTransfer`, and the options with nothing left open."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .settings import DEFAULT_SIZE, Options, Settings, layers_of, settled_of, styles_of, tuning_of

if TYPE_CHECKING:
    from ..engine.imaging.picture import Picture
    from ..engine.inputs import Opened
    from ..engine.style import Style
    from ..engine.transfer import StyleTransfer
    from ..weights import Weights


def open_weights(settings: Settings, *, only_named: bool = False) -> "Weights":
    """The weights that were asked for; where a checksum is said, whatever file has them.

    They are looked for in the file that is named and, without `only_named`, among the bundled and fetched ones. Raises
    WeightsError.
    """
    from ..weights import WeightsError, default_weights, known_weights, load_weights

    wanted = settings.weights_sha256
    if wanted is None:
        return load_weights(settings.weights or default_weights(), preprocessing=settings.preprocessing)
    known = [] if only_named else [entry.name for entry in known_weights() if entry.cached]
    problem, asked = "", settings.weights or default_weights()
    for spec in dict.fromkeys([asked, *known]):
        try:
            network = load_weights(spec, preprocessing=settings.preprocessing)
        except WeightsError as error:
            problem = problem or str(error)
            continue
        if network.checksum == wanted:
            return network
        problem = problem or f"{spec} holds others, {network.checksum[:16]}"
    reason, _, remedy = problem.partition("; ")
    if only_named:
        raise WeightsError(f"{reason}; --weights takes the run's own, which have the checksum {wanted[:16]}")
    fetch = f"{remedy}, or " if "weights fetch" in remedy else ""
    raise WeightsError(
        f"the run's weights, {asked} with the checksum {wanted[:16]}, are not to be had: {reason}; "
        f"{fetch}give the file that has them with --weights FILE"
    )


def transfer_of(
    options: Options,
    content: "Picture",
    network: "Weights",
    styles: "Sequence[Style] | None" = None,
    opened: "Opened | None" = None,
) -> "StyleTransfer":
    """What paints `content` as the options say; everything else that they name is read here.

    styles: those of the options, where their pictures are read already. opened: the options' devices, where they are.

    Raises SettingsError, ImageError, DeviceError and WeightsError, each one line.
    """
    from ..engine.tiling import geometry as tiles
    from ..engine.transfer import StyleTransfer

    return StyleTransfer(
        content,
        styles_of(options) if styles is None else styles,
        weights=network,
        device=options.device if opened is None else opened,
        precision=options.precision,
        threads=options.threads,
        size=size_of(options, max(content.pixels.shape[:2])),
        content_layers=layers_of(options.content_layers, options.content_ws, "content"),
        style_layers=layers_of(options.style_layers, options.style_lambdas, "style"),
        content_weight=options.content_weight,
        style_weight=options.style_weight,
        tv_weight=options.tv_weight,
        content_reduction=options.content_reduction,  # type: ignore[arg-type]  # all checked there
        style_statistics=options.statistics,
        tuning=tuning_of(options.match_every, options.style_turns, options.directions),
        content_mask=options.content_mask,
        mask_feather=options.mask_feather,
        border=options.border,
        colors=options.colors,  # type: ignore[arg-type]
        # Untrained filters are all alike to a max: it keeps their noise, where an average keeps the picture.
        pooling=_pooling(options, network),  # type: ignore[arg-type]
        seed=options.seed,
        tile=tiles.setting(options.tile),
    )


def taken(options: Options, transfer: "StyleTransfer") -> Options:
    """The options with what was taken for those left open, where that may be another one another day."""
    from ..kernels.cpu.thread_pool import default_count

    return replace(
        decided(options, max(transfer.shape), transfer.weights),
        device=transfer.device.name if options.device == "auto" else options.device,
        threads=(options.threads or default_count()) if transfer.device.name == "cpu" else None,
        precision=transfer.device.precision if options.precision == "auto" else options.precision,
        tile="off" if options.tile == "auto" and transfer.objective().tiling.count == 1 else options.tile,
    )


def decided(options: Options, long_side: int, network: "Weights") -> Options:
    """The same as far as the picture's long side in pixels and the weights tell: all but what is the device's."""
    from ..engine.costs.statistics.registry import used
    from ..engine.optimizers.scales import MIN_SIZE
    from ..weights import default_weights
    from ..weights.model import PREPROCESSINGS

    settled, preprocessing = settled_of(options), network.preprocessing.name
    tuning = used(tuning_of(options.match_every, options.style_turns, options.directions), options.statistics)
    return replace(
        options,
        match_every=tuning.get("match_every"),
        style_turns=tuning.get("turns"),
        directions=tuning.get("directions"),
        size=long_side,
        size_at_most=None,
        settled_fall=None if settled is None else settled.fall,
        min_size=MIN_SIZE if options.min_size is None else options.min_size,
        weights=options.weights or default_weights(),
        weights_sha256=network.checksum,
        preprocessing=preprocessing if preprocessing in PREPROCESSINGS else options.preprocessing,
        pooling=_pooling(options, network),
    )


def size_of(options: Options, content: int) -> int:
    """The long side of the picture in pixels, by the content's."""
    return min(options.size_at_most or DEFAULT_SIZE, content) if options.size is None else options.size


def _pooling(options: Options, network: "Weights") -> str:
    return options.pooling or ("average" if network.layout == "generated" else "max")
