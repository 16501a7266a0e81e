"""A new run out of what a client sent: uploaded pictures, those of another run, or the example pair."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from json import loads
from pathlib import Path
from typing import Any

from starlette.requests import Request

from ..jobs import shelf
from ..jobs.job import Job
from ..jobs.studio import Full, Studio
from ..pictures.decoders import Decoders, Unreadable
from ..settings import check, taken
from .bodies import Upload, json_of, upload_of
from .refusals import Refused

EXAMPLE = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Again:
    """A run with the settings of another: with its pictures too, where no others are uploaded."""

    like: str
    settings: dict[str, Any] | None = None
    """Instead of that run's."""
    name: str | None = None


@dataclass(frozen=True)
class Asked:
    """What is known of a run that is to be, beside its pictures."""

    settings: dict[str, Any] | None
    name: str
    like: Job | None


class Beginning:
    """Makes runs, a few at a time."""

    def __init__(self, studio: Studio, decoders: Decoders) -> None:
        self._studio, self._decoders = studio, decoders
        self._under_way = 0

    async def run(self, request: Request) -> Job:
        """What POST /api/runs asks for. Raises Refused."""
        self._check_room()
        self._under_way += 1
        try:
            with self._studio.shelf.staging() as staged:
                if request.headers.get("content-type", "").lower().startswith("multipart/"):
                    upload = await upload_of(request, staged, self._studio.limits)
                    asked = self._asked(_texts(upload))
                else:
                    upload, asked = Upload(), self._asked(await json_of(request, self._studio.limits))
                    if asked.like is None:
                        raise Refused(422, "name the run whose pictures are to be taken as like, or upload pictures")
                return await self._begun(staged, upload.pictures, asked)
        finally:
            self._under_way -= 1

    async def example(self, given: dict[str, Any]) -> Job:
        """A run of the pair that comes with nstgpu. Raises Refused."""
        self._check_room()
        with self._studio.shelf.staging() as staged:
            shutil.copyfile(EXAMPLE / "content.jpg", staged / "content")
            shutil.copyfile(EXAMPLE / "style.jpg", staged / "style-1")
            asked = self._asked(given | {"name": given.get("name") or "Example"})
            return await self._begun(staged, ["content", "style-1"], asked)

    def _check_room(self) -> None:
        limits = self._studio.limits
        try:
            self._studio.check_room()
        except Full as error:
            raise Refused(429, str(error)) from error
        if self._under_way >= limits.uploads:
            raise Refused(503, f"{limits.uploads} uploads are under way, as many as may; try again")
        if self._studio.shelf.free_bytes() < limits.free_bytes + limits.upload_bytes:
            raise Refused(507, "the disk with the runs is all but full; delete some runs")

    def _asked(self, given: dict[str, Any]) -> Asked:
        if unknown := sorted(set(given) - {"like", "settings", "name"}):
            raise Refused(422, f"this request has {unknown[0][:40]!r}; there are like, settings and name")
        like, settings, name = given.get("like"), given.get("settings"), given.get("name") or ""
        if not isinstance(name, str) or not isinstance(settings, dict | None):
            raise Refused(422, "name has to be a text, and settings an object")
        job = self._studio.jobs.get(like) if isinstance(like, str) else None
        if like is not None and job is None:
            raise Refused(422, "there is no run as like names")
        name = " ".join(name.split())[: self._studio.limits.name_characters]
        return Asked(settings, name or (job.record.name if job else ""), job)

    async def _begun(self, staged: Path, pictures: Sequence[str], asked: Asked) -> Job:
        names = {f"{name}.png" for name in pictures} | self._taken_over(staged, pictures, asked.like)
        styles = 0
        while shelf.style(styles) in names:
            styles += 1
        known = {shelf.CONTENT, shelf.CONTENT_MASK}
        for number in range(styles):
            known |= {shelf.style(number), shelf.style_mask(number), shelf.style_region(number)}
        if lacking := [name for name in (shelf.CONTENT, shelf.style(0)) if name not in names]:
            raise Refused(422, f"there is no {lacking[0].partition('.')[0].removesuffix('-1')}; send its picture")
        if beyond := sorted(names - known):
            raise Refused(422, f"there is a {beyond[0].partition('.')[0]}, but no such style")
        settings = self._settings(asked, styles)
        masks = tuple(shelf.style_mask(number) in names for number in range(styles))
        regions = tuple(shelf.style_region(number) in names for number in range(styles))
        try:
            await self._decoders.accept(staged, pictures)
            files = [str(staged / shelf.style(number)) for number in range(styles)]
            check(settings, str(staged / shelf.CONTENT), files, str(staged / shelf.RESULT))
            return self._studio.add(
                staged,
                name=asked.name,
                settings=settings,
                styles=styles,
                style_masks=masks if any(masks) else (),
                style_regions=regions if any(regions) else (),
                content_mask=shelf.CONTENT_MASK in names,
                like=None if asked.like is None else asked.like.record.id,
            )
        except Full as error:
            raise Refused(429, str(error)) from error
        except (Unreadable, ValueError) as error:
            raise Refused(422, str(error)) from error

    def _settings(self, asked: Asked, styles: int) -> dict[str, Any]:
        program, limits = self._studio.program, self._studio.limits
        given = asked.settings
        if given is None:
            given = {} if asked.like is None else dict(asked.like.record.settings)
            if len(given.get("style_weights") or [0] * styles) != styles:
                del given["style_weights"]
        try:
            return taken(given, program, limits, styles)
        except ValueError as error:
            raise Refused(422, str(error)) from error

    def _taken_over(self, staged: Path, pictures: Sequence[str], like: Job | None) -> set[str]:
        """What of another run's pictures stands in for those that were not uploaded; copied, and their names.

        Masks of the content go with the content, regions of a style with the styles.
        """
        if like is None:
            return set()
        old, names = like.record, list[str]()
        has_content, has_styles = "content" in pictures, "style-1" in pictures
        if not has_content:
            names += [shelf.CONTENT, shelf.THUMBNAIL]
            names += [shelf.CONTENT_MASK] if old.content_mask and "content-mask" not in pictures else []
        if not has_styles:
            names += [shelf.style(number) for number in range(old.styles)]
            names += [shelf.style_region(number) for number, has in enumerate(old.style_regions) if has]
            if not has_content:
                names += [shelf.style_mask(number) for number, has in enumerate(old.style_masks) if has]
        kept = {name for name in names if name.removesuffix(".png") not in pictures}
        for name in kept:
            try:
                self._studio.shelf.copy(old.id, name, staged)
            except OSError as error:
                raise Refused(409, f"the run that like names has lost its {name}") from error
        return kept - {shelf.THUMBNAIL}


def _texts(upload: Upload) -> dict[str, Any]:
    """An upload's texts as if they were JSON."""
    given: dict[str, Any] = dict(upload.texts)
    if "settings" in given:
        try:
            given["settings"] = loads(given["settings"])
        except (ValueError, RecursionError):
            raise Refused(400, "the settings are no JSON; send one object") from None
    return given
