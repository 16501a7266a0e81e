"""A run as a moving picture: frames that are put aside while it goes on, and one animated file at its end.

When a frame is due and what it shows is for the caller to say; encoding is Pillow's.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

from ..errors import ImageError
from ..imaging import files
from ..types import FloatArray

LONG_SIDE = 640
"""Of a frame, in pixels, at most."""
MOST_FRAMES = 60
"""When there are more, every other one is dropped and half as many are taken from then on."""

_MOST_EVERY = 10**9
_FORMAT_OF_SUFFIX = {".webp": "WEBP", ".gif": "GIF", ".png": "PNG", ".apng": "PNG"}
_FILMS = (".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm")
_ENCODING: dict[str, dict[str, Any]] = {"WEBP": {"quality": 85, "method": 4}, "GIF": {}, "PNG": {}}
_LENGTH, _SHORTEST, _LONGEST, _LAST = 5000, 40, 200, 2000  # of it all, of a frame, and of the last; in milliseconds


@dataclass(frozen=True)
class Frames:
    """The frames that an animation has put aside, as PNG files, and the iterations between two from there on."""

    every: int
    packed: tuple[bytes, ...]


class Animation:
    """Collects the frames of a run and writes them as animated WebP, GIF or PNG, by suffix.

        with Animation("painting.webp", every=10) as animation:
            ...
                if animation.due(iteration):
                    animation.add(pixels)
            animation.save(last_pixels)

    every: iterations between frames. Frames are kept, losslessly packed, in an unnamed file of the system's folder for
    passing files, at most LONG_SIDE pixels long and MOST_FRAMES many, so that memory stays free until save(), which
    takes up to 250 MB. Raises ImageError for another suffix, a place that can't be written, or fewer than one.
    """

    def __init__(self, path: str | os.PathLike[str], every: int) -> None:
        self.path = Path(path)
        self.every = every
        suffix = self.path.suffix.lower()
        if suffix not in _FORMAT_OF_SUFFIX:
            films = "films are left to nstgpu video; " if suffix in _FILMS else ""
            known = ", ".join(_FORMAT_OF_SUFFIX)
            raise ImageError(f"cannot write {path}: {films}an animation's name must end in one of {known}")
        if every < 1:
            raise ImageError(f"cannot animate {path} with a frame every {every} iterations; give 1 or more")
        files.check_place(self.path)
        try:
            self._store = tempfile.TemporaryFile()  # noqa: SIM115  # close() does
        except OSError as error:
            raise ImageError(
                f"cannot put aside frames of {self.path}: {error.strerror}; make room, or set TMPDIR"
            ) from error
        self._frames: list[tuple[int, int]] = []  # where each begins in the store, and its bytes

    def due(self, iteration: int) -> bool:
        """Whether the picture after this iteration, counted from 1, should be a frame: the first, and every n-th."""
        return iteration == 1 or iteration % self.every == 0

    def add(self, pixels: FloatArray) -> None:
        """Puts a frame aside, (H, W, 3) floats in [0, 1], of any size; raises ImageError if that can't be done."""
        encoded = io.BytesIO()
        files.preview(pixels, LONG_SIDE).save(encoded, "PNG", compress_level=1)
        self._put_aside(encoded.getvalue())
        if len(self._frames) > MOST_FRAMES:
            self._frames = self._frames[::2]
            self.every *= 2

    def _put_aside(self, packed: bytes) -> None:
        try:
            start = self._store.seek(0, os.SEEK_END)
            self._store.write(packed)
            self._store.flush()
        except OSError as error:
            raise ImageError(
                f"cannot put aside a frame of {self.path}: {error.strerror or error}; make room, or set TMPDIR"
            ) from error
        self._frames.append((start, len(packed)))

    def frames(self) -> Frames:
        """What was put aside so far, to be kept with a run's state."""
        self._store.seek(0)
        packed = []
        for start, size in self._frames:
            self._store.seek(start)
            packed.append(self._store.read(size))
        return Frames(self.every, tuple(packed))

    def restore(self, frames: Frames) -> None:
        """Goes on after `frames` of the same run; what is no frame as add() makes them is refused by an ImageError."""
        if not frames.packed:
            return
        if not 1 <= frames.every <= _MOST_EVERY or len(frames.packed) > MOST_FRAMES:
            raise ImageError(f"the frames to go on with {self.path} are damaged; leave the animation out")
        for packed in frames.packed:
            try:
                image = Image.open(io.BytesIO(packed), formats=["PNG"])
                fits = image.mode == "RGB" and max(image.size) <= LONG_SIDE
            except Exception as error:  # Pillow's decoders raise a dozen types
                raise ImageError(f"a frame to go on with {self.path} is damaged; leave the animation out") from error
            if not fits:
                raise ImageError(f"a frame to go on with {self.path} is damaged; leave the animation out")
            self._put_aside(packed)
        self.every = frames.every

    def save(self, last: FloatArray) -> None:
        """Writes the file whole or not at all, endless, with `last`, (H, W, 3), as its last frame, shown for longer.

        All frames are brought to the last one's size. Raises ImageError for what can't be written.
        """
        end = files.preview(last, LONG_SIDE)
        frames = [self._frame(start, size).resize(end.size, Image.Resampling.BICUBIC) for start, size in self._frames]
        frames.append(end)
        shown = min(_LONGEST, max(_SHORTEST, _LENGTH // len(frames) // 10 * 10))  # GIF counts in hundredths of a second
        file_format = _FORMAT_OF_SUFFIX[self.path.suffix.lower()]
        if file_format == "GIF":
            frames = [_in_256_colors(frame) for frame in frames]
        encoded = io.BytesIO()
        try:
            frames[0].save(
                encoded,
                file_format,
                save_all=True,
                append_images=frames[1:],
                duration=[shown] * (len(frames) - 1) + [_LAST],
                loop=0,
                icc_profile=files.srgb_profile(),
                **_ENCODING[file_format],
            )
        except (OSError, ValueError) as error:
            raise ImageError(f"cannot write {self.path}: {error}; try another format") from error
        files.write_whole(self.path, encoded.getvalue())

    def close(self) -> None:
        """Forgets the frames; what a full disk did not take of them does not matter any more."""
        with contextlib.suppress(OSError):
            self._store.close()

    def __enter__(self) -> Animation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _frame(self, start: int, size: int) -> Image.Image:
        self._store.seek(start)
        return Image.open(io.BytesIO(self._store.read(size)), formats=["PNG"])


def _in_256_colors(frame: Image.Image) -> Image.Image:
    """With a palette of its own, and dithered by it: brush strokes have more hues than one palette a film can hold."""
    sample = frame.resize((-(-frame.width // 3), -(-frame.height // 3)), Image.Resampling.NEAREST)  # 9 times as fast
    palette = sample.quantize(256, Image.Quantize.MEDIANCUT)
    return frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
