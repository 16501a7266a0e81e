"""A run's costs and frames over time, thinned: however long it is, a bounded number of either is kept."""

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...engine.imaging.files import write_whole

Point = Mapping[str, Any]


class History:
    """Progress of a run, at most `most` points, in memory and in `events.jsonl` alike.

    Points are kept at every n-th iteration; n doubles when there would be too many, and each second one goes.
    """

    def __init__(self, file: Path, most: int) -> None:
        self._file, self._most = file, most
        self.every = 1
        self.points: list[Point] = []

    @classmethod
    def read(cls, file: Path, most: int) -> "History":
        """What a file has of it; lines that are no points, as of one that was being written, are left out."""
        history = cls(file, most)
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for line in file.read_text(encoding="utf-8").splitlines()[: 4 * most]:
                with contextlib.suppress(ValueError, RecursionError):
                    point = json.loads(line)
                    if isinstance(point, dict) and type(point.get("iteration")) is int:
                        history.points.append(point)
        history._thin()
        return history

    def add(self, point: Point) -> None:
        """A point of a later iteration than those before; a run that goes on from further back repeats some."""
        iteration = int(point["iteration"])
        if self.points and iteration <= self.points[-1]["iteration"]:
            self.points = [kept for kept in self.points if kept["iteration"] < iteration]
            self._write()
        if iteration % self.every and self.points:
            return
        self.points.append(point)
        if len(self.points) > self._most:
            self._thin()
            self._write()
            return
        with self._file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(point) + "\n")

    def _thin(self) -> None:
        while len(self.points) > self._most:
            self.every *= 2
            kept = [point for point in self.points if point["iteration"] % self.every == 0]
            self.points = kept if len(kept) < len(self.points) else self.points[::2]

    def _write(self) -> None:
        write_whole(self._file, "".join(json.dumps(point) + "\n" for point in self.points).encode())


class Frames:
    """Frames of a run, at most `most` files in a folder, called by their iteration."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder, self._most = folder, most
        self.iterations: list[int] = []
        with contextlib.suppress(OSError):
            names = [name.removesuffix(".webp") for name in os.listdir(folder) if name.endswith(".webp")]
            self.iterations = sorted(int(name) for name in names if name.isdecimal() and len(name) == 10)

    def path(self, iteration: int) -> Path:
        return self._folder / f"{iteration:010d}.webp"

    def keep(self, newest: Path, iteration: int) -> Path:
        """Keeps what is in `newest` as the frame of an iteration; returns its place there."""
        self._folder.mkdir(exist_ok=True)
        place = self.path(iteration)
        place.unlink(missing_ok=True)
        try:
            os.link(newest, place)  # the file gets another name, and is replaced under its own later on
        except OSError:
            shutil.copyfile(newest, place)
        self.iterations = sorted({*self.iterations, iteration})
        while len(self.iterations) > self._most:
            for gone in self.iterations[1::2]:
                self.path(gone).unlink(missing_ok=True)
            self.iterations = self.iterations[::2]
        return place
