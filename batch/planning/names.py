"""What the pictures of a batch are called: by a template, in one folder and nowhere else."""

import string
from dataclasses import dataclass
from pathlib import Path, PurePath

from ...runs.settings import Options, split_weight

TEMPLATE = "{content}_{style}_{size}.png"
TEXTS = ("content", "folder", "style")
NUMBERS = ("number", "seed", "size")
LONGEST = 200
"""Bytes of a name; file systems take 255."""


@dataclass(frozen=True)
class Template:
    """A checked template.

    {content} and {style} are the files' names without suffixes, several styles joined by "_"; {folder} the name of the
    content's folder; {number} the place in the batch, from 1; {size} the long side in pixels; {seed}. Numbers may be
    padded, {number:04}. Raises SettingsError.
    """

    text: str

    def __post_init__(self) -> None:
        from ...engine.errors import SettingsError

        fields = ", ".join(f"{{{name}}}" for name in (*TEXTS, *NUMBERS))
        try:
            parts = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise SettingsError(f"--name {self.text}: {error}; write a name with {fields}") from None
        for _, field, form, conversion in parts:
            if field is None:
                continue
            if field not in (*TEXTS, *NUMBERS) or conversion:
                raise SettingsError(f"--name {self.text}: there is no {{{field}}}; choose among {fields}")
            padded = form and form.isascii() and form.isdecimal() and len(form) <= 2
            if form and not (padded and field in NUMBERS):
                raise SettingsError(f"--name {self.text}: {{{field}:{form}}} can't be; pad numbers as {{size:04}}")
        path = PurePath(self.text)
        if path.is_absolute() or path.drive or ".." in path.parts or not path.name or "\\" in self.text:
            raise SettingsError(f"--name {self.text} must stay within --output; write a name, or folders/within/it.png")

    def path(self, folder: Path, options: Options, number: int, size: int) -> Path:
        """Where a picture goes, below `folder`; number from 1. Raises SettingsError for what can be no file's name."""
        from ...engine.errors import SettingsError

        content = Path(options.content)
        name = self.text.format(
            content=_plain(content.stem),
            folder=_plain(content.absolute().parent.name),
            style=_plain("_".join(Path(split_weight(text)[0]).stem for text in options.styles)),
            number=number,
            seed=options.seed,
            size=size,
        )
        for part in PurePath(name).parts:
            if part.strip(". ") == "" or len(part.encode(errors="replace")) > LONGEST:
                raise SettingsError(f"{content}: {part[:40]!r} can be no name of a picture; choose another --name")
        return folder / name


def _plain(text: str) -> str:
    """A file's name as part of another's: nothing in it is a folder's."""
    return "".join("_" if character in "/\\:\0" else character for character in text)
