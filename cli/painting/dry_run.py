"""`nstgpu run --dry-run`: what a run would do, with every number that it would measure first."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...engine.wording import counted
from ...runs.settings import Options, method_of
from ..terminal.messages import printable
from .destinations import STANDARD

if TYPE_CHECKING:
    from ...engine.imaging.files import Picture
    from ...engine.transfer import StyleTransfer


def show(options: Options, transfer: "StyleTransfer", content: "Picture") -> None:
    """Prints it on standard output, a line each; nothing is painted or written."""
    facts = list(_facts(options, transfer, content))
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        print(f"{name:<{width}}  {printable(value)}")


def _facts(options: Options, transfer: "StyleTransfer", content: "Picture") -> Iterator[tuple[str, str]]:
    method = transfer.method(**method_of(options))
    settings = transfer.settings(method, options.init, options.noise)
    height, width = content.pixels.shape[:2]
    yield "content", f"{options.content}, {width}x{height} px"
    for text, style in zip(options.styles, transfer.objective().styles, strict=True):
        seen_height, seen_width = style.pixels.shape[:2]
        yield "style", f"{text}, looked at in {seen_width}x{seen_height} px"
    for name, value in settings.items():
        if name not in ("content", "style", "nstgpu"):
            yield name, value
    if options.learning_rate is not None:
        yield "learning rate", f"{options.learning_rate:g}"
    iterations = sum(scale.iterations for scale in method.scales)
    yield "iterations", f"{iterations} over {counted(len(method.scales), 'scale')}"
    tiling = transfer.objective().tiling
    yield "tiles", str(tiling)
    yield "would write", ", ".join(_written(options))


def _written(options: Options) -> Iterator[str]:
    yield "a PNG on standard output" if options.output == STANDARD else options.output
    if options.save_every is not None:
        yield f"{options.output} every {counted(options.save_every, 'iteration')}, numbered"
    for path in (options.animation, options.report, options.json_file, options.checkpoint):
        if path is not None:
            yield "standard output" if path == "-" else path
