"""What every address of the API does; `operations` lists them all."""

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from ...runs.changes import fitting
from ..jobs import shelf
from ..jobs.job import Job
from ..jobs.record import Detail, Summary
from ..jobs.studio import Conflict, Full, Studio
from ..json_types import from_json
from ..pictures.decoders import Decoders, Unreadable
from ..settings import taken
from .about import FORMATS, About, look
from .begin import Again, Beginning
from .bodies import json_of
from .operations import Operation, describe
from .refusals import Refused

PICTURE = {"type": "string", "format": "binary"}
REPORT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Of a report, which is a page of its own with its style sheet and pictures in it."""


@dataclass(frozen=True)
class Runs:
    """All runs: what is painted, then the queue in its order, then what has ended, newest first."""

    runs: tuple[Summary, ...]


@dataclass(frozen=True)
class Begun:
    """A run that was made."""

    id: str


@dataclass(frozen=True)
class Kept:
    """Iterations of which a frame is kept."""

    iterations: tuple[int, ...]


@dataclass(frozen=True)
class Example:
    """A run of the example pair."""

    settings: dict[str, Any] | None = None
    name: str | None = None


@dataclass(frozen=True)
class Patch:
    """What is to become of a run; whatever is left out stays."""

    name: str | None = None
    position: int | None = None
    """In the queue, from zero."""
    pause: bool | None = None
    stop: bool | None = None
    """Whether it is to end here, with its picture kept."""
    more_scale: bool | None = None
    """Whether it is to paint one scale more, √2 as large as its last."""
    changes: dict[str, Any] | None = None
    """Settings that are to be otherwise from the next iteration on."""


class Api:
    """The handlers of every address."""

    def __init__(self, studio: Studio, devices: tuple[str, ...]) -> None:
        self._studio, self._devices = studio, devices
        self._decoders = Decoders(studio.limits)
        self._beginning = Beginning(studio, self._decoders)
        self._about: About | None = None
        self._asking = asyncio.Lock()
        self._small = asyncio.Lock()

    async def about(self, request: Request) -> Response:
        """What this server can do. Its settings are what `nstgpu run` takes."""
        del request
        async with self._asking:
            if self._about is None:
                self._about = await asyncio.to_thread(look, self._studio.program, self._studio.limits, self._devices)
        return JSONResponse(asdict(self._about))

    async def list_runs(self, request: Request) -> Response:
        """All runs."""
        del request
        return JSONResponse({"runs": self._studio.list_event()["runs"]})

    async def create_run(self, request: Request) -> Response:
        """Begin a run. With pictures as multipart/form-data, or, as JSON, with those of the run that `like` names;
        with both, what is not uploaded is that run's."""
        job = await self._beginning.run(request)
        return JSONResponse({"id": job.record.id}, 201)

    async def create_example(self, request: Request) -> Response:
        """Begin a run of the example pair."""
        given = await json_of(request, self._studio.limits) if await _has_body(request) else {}
        job = await self._beginning.example(given)
        return JSONResponse({"id": job.record.id}, 201)

    async def get_run(self, request: Request) -> Response:
        """All that is known of a run."""
        detail = await asyncio.to_thread(self._job(request).detail)
        return JSONResponse(asdict(detail))

    async def change_run(self, request: Request) -> Response:
        """Change a run, or what becomes of it. What changes while it is painted takes effect after an iteration, and is
        told of by the live connection, as is what the run refuses."""
        job, studio = self._job(request), self._studio
        try:
            patch = from_json(Patch, await json_of(request, studio.limits))
        except ValueError as error:
            raise Refused(422, f"this request {error}") from error
        try:
            if patch.changes is not None:
                self._change(job, patch.changes)
            if patch.name is not None:
                studio.rename(job, patch.name)
            if patch.position is not None:
                studio.move(job, patch.position)
            if patch.more_scale:
                studio.add_scale(job)
            if patch.pause is not None:
                studio.pause(job, patch.pause)
            if patch.stop:
                studio.stop(job)
        except Conflict as error:
            raise Refused(409, str(error)) from error
        return JSONResponse(asdict(await asyncio.to_thread(job.detail)))

    def _change(self, job: Job, changes: dict[str, Any]) -> None:
        """One that waits has other settings from the start; one that is painted is told."""
        studio = self._studio
        try:
            if job.record.state == "queued":
                settings = taken(job.record.settings | changes, studio.program, studio.limits, job.record.styles)
                studio.set(job, settings)
                return
            fitting(changes, "the request")
        except Conflict:
            raise
        except ValueError as error:
            raise Refused(422, str(error)) from error
        studio.change(job, changes)

    async def delete_run(self, request: Request) -> Response:
        """End a run and remove all of it."""
        await self._studio.remove(self._job(request))
        return Response(status_code=204)

    async def resume_run(self, request: Request) -> Response:
        """Go on with a run that was stopped or has failed. It waits at the end of the queue."""
        job = self._job(request)
        try:
            self._studio.resume(job)
        except Conflict as error:
            raise Refused(409, str(error)) from error
        except Full as error:
            raise Refused(429, str(error)) from error
        return JSONResponse(asdict(await asyncio.to_thread(job.detail)))

    # ---- a run's files

    async def get_picture(self, request: Request) -> Response:
        """The picture that a run has painted, with its recipe inside. As a PNG of 8 bits unless `format` says else."""
        job, wanted = self._job(request), request.query_params.get("format", "png")
        if wanted not in FORMATS:
            raise Refused(422, f"there is no format {wanted[:20]!r}; choose {', '.join(FORMATS)}")
        name, kind, depth = FORMATS[wanted]
        source, target = job.folder / shelf.RESULT, job.folder / name
        if not source.exists():
            raise Refused(404, "this run has no picture yet")
        if not target.exists() or target.stat().st_mtime_ns < source.stat().st_mtime_ns:
            try:
                await self._decoders.convert(job.folder, shelf.RESULT, name, depth)
            except Unreadable as error:
                raise Refused(500, str(error)) from error
        return self._file(job, name, kind, f"{job.record.id}{target.suffix}")

    async def get_frame(self, request: Request) -> Response:
        """The newest frame."""
        return self._file(self._job(request), shelf.FRAME, "image/webp")

    async def get_thumbnail(self, request: Request) -> Response:
        """A small picture of a run: of its newest frame, or its content."""
        job = self._job(request)
        frame, small = job.folder / shelf.FRAME, job.folder / shelf.THUMBNAIL
        async with self._small:
            if frame.exists() and (not small.exists() or small.stat().st_mtime_ns < frame.stat().st_mtime_ns):
                await asyncio.to_thread(job.shrink)
        return self._file(job, shelf.THUMBNAIL, "image/webp")

    async def get_content(self, request: Request) -> Response:
        """The content, as a PNG."""
        return self._file(self._job(request), shelf.CONTENT, "image/png")

    async def get_content_mask(self, request: Request) -> Response:
        """The mask of the content, white where it stays as it is."""
        return self._file(self._job(request), shelf.CONTENT_MASK, "image/png")

    async def get_style(self, request: Request) -> Response:
        """A style, as a PNG; they are counted from zero."""
        return self._file(self._job(request), shelf.style(request.path_params["number"]), "image/png")

    async def get_style_mask(self, request: Request) -> Response:
        """The mask of a style, white where on the content it is wanted."""
        return self._file(self._job(request), shelf.style_mask(request.path_params["number"]), "image/png")

    async def get_style_region(self, request: Request) -> Response:
        """The region of a style, white where in its picture to look."""
        return self._file(self._job(request), shelf.style_region(request.path_params["number"]), "image/png")

    async def get_frames(self, request: Request) -> Response:
        """Iterations of which a frame is kept."""
        detail = await asyncio.to_thread(self._job(request).detail)
        return JSONResponse({"iterations": detail.frames})

    async def get_kept_frame(self, request: Request) -> Response:
        """The frame of an iteration."""
        job = self._job(request)
        name = f"{shelf.FRAMES}/{job.frame_file(request.path_params['number']).name}"
        return self._file(job, name, "image/webp")

    async def get_recipe(self, request: Request) -> Response:
        """The recipe of a run's picture, as `nstgpu run --recipe` takes it."""
        job = self._job(request)
        text = await asyncio.to_thread(job.recipe)
        if text is None:
            raise Refused(404, "this run has no picture yet, and so no recipe")
        name = {"content-disposition": f'inline; filename="{job.record.id}.toml"'}
        return Response(text, headers=name, media_type="text/plain")

    async def get_report(self, request: Request) -> Response:
        """The report of a run, one page with pictures, cost curves and recipe."""
        job = self._job(request)
        if not self._studio.program.has_reports and not (job.folder / shelf.REPORT).exists():
            raise Refused(404, "reports need matplotlib: pip install 'nstgpu[report]'")
        answer = self._file(job, shelf.REPORT, "text/html", f"{job.record.id}.html")
        answer.headers["content-security-policy"] = REPORT_POLICY
        return answer

    async def get_animation(self, request: Request) -> Response:
        """The way of a picture, as an animated WebP."""
        job = self._job(request)
        return self._file(job, shelf.ANIMATION, "image/webp", f"{job.record.id}-way.webp")

    async def openapi(self, request: Request) -> Response:
        """This description."""
        del request
        return JSONResponse(describe(self.operations()))

    # ---- what they share

    def _job(self, request: Request) -> Job:
        try:
            return self._studio.job(request.path_params["id"])
        except KeyError:
            raise Refused(404, "there is no such run") from None

    def _file(self, job: Job, name: str, kind: str, called: str | None = None) -> Response:
        place = job.folder / name
        if not place.is_file():
            raise Refused(404, "this run has no such file, or not yet")
        return FileResponse(place, media_type=kind, filename=called, content_disposition_type="inline")

    def operations(self) -> tuple[Operation, ...]:
        """Every address, in the order in which they are described."""
        runs, one = "/api/runs", "/api/runs/{id}"
        uploads: dict[str, Any] = {"content": PICTURE, "style": {"type": "array", "items": PICTURE}}
        uploads |= {"content_mask": PICTURE}
        for number in range(self._studio.limits.styles):
            uploads |= {f"style_mask_{number}": PICTURE, f"style_region_{number}": PICTURE}
        text = {"type": "string"}
        uploads |= {"settings": text | {"contentMediaType": "application/json"}, "name": text, "like": text}
        png, webp = ("image/png",), ("image/webp",)
        pictures = tuple(dict.fromkeys(kind for _, kind, _ in FORMATS.values()))
        return (
            Operation("GET", "/api/about", self.about, About),
            Operation("GET", runs, self.list_runs, Runs),
            Operation("POST", runs, self.create_run, Begun, status=201, takes=Again, uploads=uploads),
            Operation("POST", "/api/example", self.create_example, Begun, status=201, takes=Example),
            Operation("GET", one, self.get_run, Detail),
            Operation("PATCH", one, self.change_run, Detail, takes=Patch),
            Operation("DELETE", one, self.delete_run, status=204),
            Operation("POST", f"{one}/resume", self.resume_run, Detail),
            Operation("GET", f"{one}/picture", self.get_picture, media=pictures, query={"format": tuple(FORMATS)}),
            Operation("GET", f"{one}/frame", self.get_frame, media=webp),
            Operation("GET", f"{one}/thumbnail", self.get_thumbnail, media=webp),
            Operation("GET", f"{one}/content", self.get_content, media=png),
            Operation("GET", f"{one}/content_mask", self.get_content_mask, media=png),
            Operation("GET", f"{one}/style/{{number:int}}", self.get_style, media=png),
            Operation("GET", f"{one}/style_mask/{{number:int}}", self.get_style_mask, media=png),
            Operation("GET", f"{one}/style_region/{{number:int}}", self.get_style_region, media=png),
            Operation("GET", f"{one}/frames", self.get_frames, Kept),
            Operation("GET", f"{one}/frames/{{number:int}}", self.get_kept_frame, media=webp),
            Operation("GET", f"{one}/recipe", self.get_recipe, media=("text/plain",)),
            Operation("GET", f"{one}/report", self.get_report, media=("text/html",)),
            Operation("GET", f"{one}/animation", self.get_animation, media=webp),
            Operation("GET", "/openapi.json", self.openapi, dict[str, Any]),
        )


async def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
