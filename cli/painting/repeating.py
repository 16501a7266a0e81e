"""Runs done again: a recipe read back, and the text of a checkpoint, for going on, written and read.

What stands in either is refused unless this version knows it. A recipe has nothing that says where to write; what a
checkpoint says of that is obeyed if this user wrote it, and asked about otherwise.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...engine.wording import counted, quoted
from ...runs import files
from ...runs.files import SUMS
from ...runs.recipes import Sums
from ...runs.settings import EITHER, TUNING, Options, Settings, checked, is_same_file, iterations_of
from ..terminal.messages import say
from . import inputs
from .inputs import Source

if TYPE_CHECKING:
    from ...engine.optimizers.coarse_to_fine import RunState

MOST_CHARACTERS = 1 << 18
"""Of a checkpoint's options."""
OUTPUTS = ("output", "json_file", "animation", "report", "checkpoint")
"""The options that name files to write."""


# ---- recipes ----------------------------------------------------------------------------------------------------


def from_recipe(file: Path, given: Mapping[str, Any], *, yes: bool, quiet: bool) -> dict[str, Any]:
    """A recipe's settings, but for those that are `given` anew, with its files found.

    Raises SettingsError and ImageError.
    """
    from ...engine.errors import SettingsError
    from ...engine.reporting import recipe

    title = f"the recipe in {file}"
    values: dict[str, Any] = dict(recipe.load(file))
    if values.pop(recipe.VERSION_KEY, None) == "":
        _as_this_version_says(values)
    values, sums = _apart(values, title)
    dropped = set(given)
    for one, other in EITHER:
        if one in given or other in given:  # the recipe's way of giving them, too, is changed
            dropped |= {one, other}
    if "device" in given:  # what belongs to the device goes with it
        dropped |= {"precision", "threads"}
    if "statistics" in given:
        dropped |= set(TUNING)
    if "weights" in given:  # what belongs to the weights goes with them
        dropped |= {"weights_sha256", "preprocessing"}
    kept = checked(values, Settings, title)
    kept = {name: value for name, value in kept.items() if name not in dropped}
    if "content" not in kept and "content" not in given:
        raise SettingsError(f"{title} names no content; name the picture to paint after run")
    if not kept.get("styles") and not given.get("styles"):
        raise SettingsError(f"{title} names no style; give one with --style")
    settings = inputs.found(Settings(**kept), sums, Source(file, title, yes, quiet))
    return {name: getattr(settings, name) for name in kept}


def _as_this_version_says(values: dict[str, Any]) -> None:
    """What pictures of earlier versions say otherwise: a layer's weight was the formula's own, for all if for one; and
    what was left alone was left out, where iterations were 100 at each scale."""
    values.setdefault("iterations", "100")
    for earlier, now in (("content_layers", "content_ws"), ("style_layers", "style_lambdas")):
        layers = values.get(earlier)
        if isinstance(layers, list) and any("=" in str(layer) for layer in layers):
            values[now] = [layer if "=" in str(layer) else f"{layer}=1" for layer in values.pop(earlier)]


def _apart(values: Mapping[str, Any], title: str) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The settings, and the checksums of the files they name."""
    from ...engine.errors import SettingsError

    settings, sums = {}, {}
    for name, value in values.items():
        if not name.endswith(SUMS) or name == "weights" + SUMS:
            settings[name] = value
            continue
        listed = value if isinstance(value, list) else [value]
        if name.removesuffix(SUMS) not in values or not all(isinstance(one, str) for one in listed):
            raise SettingsError(f"{title} has {quoted(name)}, which this version does not know; leave it out")
        sums[name.removesuffix(SUMS)] = listed
    return settings, sums


# ---- checkpoints ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Anew:
    """What `nstgpu resume` is told besides the checkpoint."""

    output: str | None = None
    weights: str | None = None
    iterations: str | None = None
    yes: bool = False
    quiet: bool = False
    pictures: tuple[str, ...] = ()
    """Inputs that are no longer where they were, or came out of a pipe; told by their checksums."""


def checkpoint_text(options: Options, sums: Sums) -> str:
    """The options of a run whose options were all taken, with paths that hold in any folder, sealed."""
    from ... import __version__
    from .ownership import sealed

    absolute = files.renamed(
        options, lambda _, __, path: files.STANDARD_INPUT if files.is_piped(path) else os.path.abspath(path)
    )
    outputs = {name: getattr(options, name) for name in OUTPUTS}
    absolute = replace(
        absolute, **{name: os.path.abspath(path) for name, path in outputs.items() if path and path != "-"}
    )
    if absolute.weights and files.is_file_spec(absolute.weights):
        absolute = replace(absolute, weights=os.path.abspath(absolute.weights))
    told = json.dumps({"nstgpu": __version__, "options": asdict(absolute), "sha256": sums})
    return json.dumps({"run": told, "seal": sealed(told)})


def from_checkpoint(file: str, text: str, anew: Anew) -> Options:
    """The options of the run that a checkpoint is of, with what is said anew; its files are found.

    Raises SettingsError, among others for one of another user's that says where to write, unless that is allowed.
    """
    title = f"the checkpoint {file}"
    values, sums, ours = _read(text, title)
    options = Options(**checked(values, Options, title))
    written = [f"{getattr(options, name)}" for name in OUTPUTS[:-1] if getattr(options, name)]
    source = Source(Path(file), title, anew.yes or ours, anew.quiet or ours, others=False, pictures=anew.pictures)
    if not ours and anew.output is not None and not anew.yes:
        left_out = [path for path in written if path != options.output]
        options = replace(options, json_file=None, animation=None, report=None, save_every=None)
        if left_out and not anew.quiet:
            say(f"note: {title} is not of your making: {', '.join(left_out)} is not written; --yes writes it")
    elif not ours:
        inputs.ask(
            source,
            [f"{title} is not of your making, and writes {path}" for path in written],
            "Write there?",
            f"{title} is not of your making (or an earlier version's) and would write {', '.join(written)}; "
            "say where with -o FILE, or --yes to all of it",
        )
    if anew.output is not None and not anew.yes and os.path.lexists(anew.output):
        from ...engine.errors import SettingsError

        if not is_same_file(anew.output, options.output):
            raise SettingsError(f"{anew.output} exists already; --yes overwrites it, or choose another --output")
    options = replace(
        options,
        output=anew.output or options.output,
        weights=anew.weights or options.weights,
        checkpoint=file,
        quiet=anew.quiet,
    )
    return inputs.found(options, sums, source)


def _read(text: str, title: str) -> tuple[dict[str, Any], dict[str, list[str]], bool]:
    """The options, the checksums of the files, and whether this user wrote them."""
    from ...engine.errors import SettingsError
    from .ownership import is_ours

    damaged = f"{title} has options that cannot be read; it is damaged, or of another version"
    if len(text) > MOST_CHARACTERS:
        raise SettingsError(damaged)
    try:
        whole = json.loads(text)
        told = json.loads(whole["run"]) if isinstance(whole, dict) and isinstance(whole.get("run"), str) else None
    except (ValueError, RecursionError):
        raise SettingsError(damaged) from None
    if told is None:  # an earlier version's: the options alone
        if not isinstance(whole, dict):
            raise SettingsError(damaged)
        _as_this_version_says(whole)
        return whole, {}, False
    values, sums = (told.get("options"), told.get("sha256")) if isinstance(told, dict) else (None, None)
    if not (isinstance(values, dict) and isinstance(sums, dict)) or not all(
        isinstance(listed, list) and all(isinstance(one, str) for one in listed) for listed in sums.values()
    ):
        raise SettingsError(damaged)
    seal = whole.get("seal")
    return values, sums, isinstance(seal, str) and is_ours(whole["run"], seal)


def with_more(options: Options, asked: str, state: "RunState", decay: float, scales: int) -> Options:
    """The options with other iterations, from the scale on at which the run is.

    The average goes on with the decay that it had, so that the picture can be repeated in one go.
    """
    from ...engine.errors import SettingsError
    from ...engine.optimizers.scales import at_each

    now = iterations_of(asked)
    earlier, each = (at_each(given, scales) for given in (iterations_of(options.iterations), now))
    if len(each) != scales:
        raise SettingsError(
            f"--iterations {asked} is given for {counted(len(each), 'scale')}, and the run has {scales}"
        )
    if isinstance(now, list) and each[: state.scale] != earlier[: state.scale]:
        done = counted(state.scale, "scale")
        raise SettingsError(
            f"--iterations {asked}: the first {done} went with {list(earlier[: state.scale])}; keep them"
        )
    each = (*earlier[: state.scale], *each[state.scale :])
    if each[state.scale] < state.iteration:
        raise SettingsError(
            f"--iterations {asked}: {state.iteration} are done already at this scale; give more than that"
        )
    return replace(options, iterations=",".join(map(str, each)), average=decay)
