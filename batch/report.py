"""What came of a batch: for people a contact sheet in HTML that needs nothing but itself, and for programs JSON."""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ..engine.wording import counted
from .painting.paint import thumbnail
from .planning.plan import Plan
from .tasks import Outcome, Task

HTML, JSON = "report.html", "report.json"
MARK = "nstgpu batch"
"""In both files, so that none of somebody else's is written over."""
MOST_PICTURES = 500
"""Of the contact sheet; what is beyond is told in words."""

_STYLE_SHEET = """
:root { color-scheme: light dark; --faint: color-mix(in srgb, currentColor 55%, transparent); }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } header p { color: var(--faint); margin: .2rem 0 1.5rem; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); gap: 1.25rem; }
figure { margin: 0; } figure a, figure .none { display: grid; place-items: center; aspect-ratio: 1; background:
color-mix(in srgb, currentColor 7%, transparent); border-radius: 4px; overflow: hidden; }
figure a { color: inherit; } figure img { width: 100%; height: 100%; object-fit: contain; }
figure .none { color: var(--faint); font-size: .85rem; padding: .75rem; text-align: center; overflow-wrap: anywhere; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; margin-top: .35rem; } small { color: var(--faint); }
.failed .none { color: light-dark(#a1260d, #ff9b85); }
"""


@dataclass(frozen=True, eq=False)
class Summary:
    """A batch after its end."""

    plan: Plan
    outcomes: Sequence[Outcome]
    """By the order of the tasks; none of those that it did not come to."""
    seconds: float

    def count(self, state: str) -> int:
        return sum(outcome.state == state for outcome in self.outcomes)

    @property
    def left(self) -> int:
        """Tasks that it did not come to."""
        return len(self.plan.tasks) - len(self.outcomes)

    @property
    def complete(self) -> bool:
        """Whether every picture is there."""
        return self.left == 0 and self.count("failed") == 0

    def __str__(self) -> str:
        """ "48 pictures painted, 1 there already, 1 failed"."""
        parts = [f"{counted(self.count('painted'), 'picture')} painted"]
        parts += [f"{self.count('skipped')} there already"] if self.count("skipped") else []
        parts += [f"{self.count('failed')} failed"] if self.count("failed") else []
        parts += [f"{self.left} left"] if self.left else []
        return ", ".join(parts)


def check_destinations(folder: Path, *, force: bool) -> None:
    """Raises SettingsError where a report would be written over a file that is none of a batch's."""
    from ..engine.errors import SettingsError

    for name in (HTML, JSON):
        path = folder / name
        if path.exists() and not force and not _is_ours(path):
            raise SettingsError(
                f"{path} is there and no report of a batch; --force overwrites it, --no-report leaves it"
            )


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return MARK.encode() in file.read(1000)
    except OSError:
        return False


def write(summary: Summary) -> None:
    """Writes both files into the batch's folder; raises ImageError."""
    from ..engine.imaging.codecs.whole_file import write_whole

    folder = summary.plan.folder
    write_whole(folder / JSON, (json.dumps(as_json(summary), indent=1) + "\n").encode(errors="backslashreplace"))
    write_whole(folder / HTML, page(summary).encode(errors="backslashreplace"))


def as_json(summary: Summary) -> dict[str, Any]:
    """What `report.json` says: a record of each task, those that were not come to among them ("left")."""
    from .. import __version__

    told = {outcome.task.number: outcome for outcome in summary.outcomes}
    return {
        MARK: __version__,
        "seconds": round(summary.seconds, 3),
        **{state: summary.count(state) for state in ("painted", "skipped", "failed")},
        "left": summary.left,
        "pictures": [_record(task, told.get(task.number)) for task in summary.plan.tasks],
    }


def _record(task: Task, outcome: Outcome | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "output": task.options.output,
        "content": task.options.content,
        "styles": list(task.options.styles),
        "state": "left" if outcome is None else outcome.state,
    }
    if outcome is not None and outcome.state != "skipped":
        record |= {"attempts": outcome.attempts, "seconds": round(outcome.seconds, 3)}
        record |= {"reason": outcome.reason} if outcome.reason else {}
        record |= {"size": [outcome.shape[1], outcome.shape[0]]} if outcome.shape else {}
        record |= {"costs": list(outcome.costs)} if outcome.costs else {}
    return record


# ---- the contact sheet ------------------------------------------------------------------------------------------


def page(summary: Summary) -> str:
    """The whole page: pictures are small JPEGs within it, and each leads to its file beside it."""
    order = sorted(summary.outcomes, key=lambda outcome: (outcome.state != "failed", outcome.task.number))
    shown = sorted(order[:MOST_PICTURES], key=lambda outcome: outcome.task.number)
    rest = len(order) - len(shown)
    told = [f"{summary}", _duration(summary.seconds)]
    told += [f"{rest} more are not shown"] if rest else []
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="generator" content="{MARK}"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>{_text(summary.plan.folder.absolute().name)}</title>
<style>{_STYLE_SHEET}</style>
</head>
<body>
<header><h1>{_text(summary.plan.folder.absolute().name)}</h1><p>{_text(" · ".join(told))}</p></header>
<main>
{"".join(_figures(shown, summary.plan.folder))}</main>
</body>
</html>
"""


def _figures(outcomes: Iterable[Outcome], folder: Path) -> Iterable[str]:
    for outcome in outcomes:
        task = outcome.task
        name = task.output.relative_to(folder).as_posix()
        made = f"{Path(task.options.content).name} in {', '.join(Path(style).name for style in task.styles)}"
        small = outcome.thumbnail or (_small(task.output) if outcome.state == "skipped" else None)
        if small is None:
            inside = f'<div class="none">{_text(outcome.reason or "no picture")}</div>'
        else:
            source = base64.b64encode(small).decode()
            inside = f'<a href="{_address(name)}"><img src="data:image/jpeg;base64,{source}" alt="{_text(made)}"/></a>'
        yield (
            f'<figure class="{outcome.state}">{inside}<figcaption>{_text(name)}<br/>'
            f"<small>{_text(' · '.join([made, *_facts(outcome)]))}</small></figcaption></figure>\n"
        )


def _facts(outcome: Outcome) -> Iterable[str]:
    if outcome.state != "painted":
        yield "there already" if outcome.state == "skipped" else "failed"
        return
    if outcome.shape:
        yield f"{outcome.shape[1]} × {outcome.shape[0]}"
    yield _duration(outcome.seconds)
    if outcome.costs:
        yield f"cost {outcome.costs[1]:.3g}"


def _small(path: Path) -> bytes | None:
    from ..engine.imaging import files as images

    try:
        return thumbnail(images.read(path).pixels)
    except (images.ImageError, MemoryError):
        return None


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _address(name: str) -> str:
    from urllib.parse import quote

    return quote(name, errors="surrogateescape")


def _text(text: str) -> str:
    return escape("".join(character if character.isprintable() else "\ufffd" for character in text))
