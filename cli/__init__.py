"""The command line: `nstgpu`, one file per command.

Each command file holds a plain function that typer reads; this one puts them together and turns errors into one line.
Nothing heavy is imported before a command needs it, so that `nstgpu --help` is instant.
"""

import logging
import os
import re
import sys
import warnings
from typing import Annotated, Any

import typer

from . import cache, doctor, layers, plan, profile, reconstruct, resume, run, serve, weights
from .many import batch
from .options import VERSION
from .terminal import streams, usage
from .terminal.messages import Lines, is_for_users, printable, say

_PARAMETERS = ("content_weight", "style_weight", "tv_weight", "style_scale", "mask_feather", "threads")
_PARAMETER = re.compile(rf"(^|: )({'|'.join(_PARAMETERS)})(?= is )")
_HOME = re.compile(r"(--[a-z-]+=|-[a-z]|)(~.*)", re.DOTALL)


class OneLineErrors(usage.Group):
    """Turns an error into one line on stderr and an exit code: 2 for bad input, 1 for a failure.

    `--debug` on the command lets the traceback through.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        streams.spell_what_they_lack()
        given = args[0] if args else kwargs.pop("args", None)
        given = [_at_home(text) for text in (sys.argv[1:] if given is None else given)]
        try:
            try:
                return self._main(given, *args[1:], **kwargs)
            finally:
                streams.flush_output()
        except BrokenPipeError:
            streams.nobody_reads()
            raise SystemExit(streams.READER_GONE) from None
        except SystemExit as end:
            if isinstance(end.__context__, BrokenPipeError):  # rich and click end with 1 over it
                raise SystemExit(streams.READER_GONE) from None
            raise

    def _main(self, *args: Any, **kwargs: Any) -> Any:
        alone = kwargs.setdefault("standalone_mode", True)
        try:
            code = super().main(*args, **(kwargs | {"standalone_mode": False}))
            if not alone:
                return code
        except typer.Abort:
            if not alone:
                raise
            streams.complain("nstgpu: aborted")
            code = 1
        except Exception as error:
            if not alone:
                raise
            code = usage.answer(error)
        raise SystemExit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        _show_messages()
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # of standard output: other pipes are answered where they are written to
            streams.nobody_reads()
            raise SystemExit(streams.READER_GONE) from None
        except (
            OSError,
            ArithmeticError,
            MemoryError,
            RuntimeError,
            ValueError,
            TypeError,
            LookupError,
            ImportError,
        ) as error:
            if isinstance(error, typer.Exit | typer.Abort) or type(error).__module__.startswith(("click", "typer")):
                raise  # the command line's own: wrong options, an exit asked for
            if "--debug" in sys.argv[1:]:
                raise
            streams.complain(f"nstgpu: {printable(_one_line(error))}")
            raise typer.Exit(2 if _is_bad_input(error) else 1) from None


def _at_home(argument: str) -> str:
    """An argument with its ~ in full, also behind --option= and -o, where shells leave it as it is."""
    match = _HOME.fullmatch(argument)
    return argument if match is None else match[1] + os.path.expanduser(match[2])


app: typer.Typer = typer.Typer(
    name="nstgpu",
    cls=OneLineErrors,
    help="Neural style transfer by optimising pixels, with no deep-learning framework.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(name="run", cls=usage.Command)(run.run)
app.command(name="batch", cls=usage.Command)(batch.batch)
app.command(name="resume", cls=usage.Command)(resume.resume)
app.command(name="serve", cls=usage.Command)(serve.serve)
app.command(name="layers", cls=usage.Command)(layers.layers)
app.command(name="reconstruct", cls=usage.Command)(reconstruct.reconstruct)
app.command(name="plan", cls=usage.Command)(plan.plan)
app.command(name="profile", cls=usage.Command)(profile.profile)
app.command(name="doctor", cls=usage.Command)(doctor.doctor)
app.add_typer(weights.app, name="weights")
app.add_typer(cache.app, name="cache")


@app.callback()
def options(version: Annotated[bool, VERSION] = False) -> None:
    """Neural style transfer by optimising pixels, with no deep-learning framework."""
    del version  # acted on by its callback


def _show_messages() -> None:
    """What the library logs and warns of goes to stderr."""
    logger = logging.getLogger("nstgpu")
    logger.setLevel(logging.INFO)
    logger.handlers[:] = [Lines()]
    logger.propagate = False
    warnings.showwarning = _show_warning


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if is_for_users(category):
        say(f"note: {message}")


def _is_bad_input(error: Exception) -> bool:
    if isinstance(error, MemoryError | ImportError):  # neither is, and nothing more may be importable
        return False
    from ..engine.errors import SettingsError
    from ..engine.imaging.files import ImageError
    from ..kernels import DeviceError
    from ..weights import WeightsError

    return isinstance(error, ImageError | SettingsError | DeviceError | WeightsError)


def _one_line(error: Exception) -> str:
    message = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        remedy = "free some, or raise its limit" if message.startswith("reading ") else "use a smaller --size"
        return f"out of memory ({message or 'no details'}); {remedy}"
    if isinstance(error, ImportError):
        lacking = "allocate memory" in message or "failed to map" in message  # of a library, by the loader
        return f"out of memory ({message}); free some, or raise its limit" if lacking else message
    from ..engine.errors import NonFiniteCostError

    if _is_bad_input(error) or isinstance(error, NonFiniteCostError):  # the library's names as the options
        return _PARAMETER.sub(lambda found: f"{found[1]}--{found[2].replace('_', '-')}", message)
    if isinstance(error, OSError):
        return message
    return f"unexpected {type(error).__name__}: {message}; run again with --debug and report it"


def main() -> None:
    """The console script."""
    app()
