"""The folder of all runs, one folder each: made, kept, found again after anything, and removed; and its lock.

Every name in it is made here. Nothing that a client sends is a part of a path.
"""

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO

from ...engine.errors import SettingsError
from ...engine.imaging.codecs.whole_file import clean
from ...engine.imaging.files import write_whole
from ..json_types import from_json
from .record import RUN_ID, Record

JOB, RESULT, FRAME, CHECKPOINT, EVENTS, LOG = (
    ("job.json", "result.png", "frame.webp", "run.ckpt", "events.jsonl", "log.txt")
)  # fmt: skip
REPORT, ANIMATION, CONTENT, CONTENT_MASK, THUMBNAIL, BEGUN = (
    ("report.html", "way.webp", "content.png", "content-mask.png", "thumbnail.webp", "begun.json")
)  # fmt: skip
FRAMES = "frames"
_INCOMING = ".incoming"
_GONE = ".gone"
_LONGEST_RECORD = 4 << 20


def style(number: int) -> str:
    return f"style-{number + 1}.png"


def style_mask(number: int) -> str:
    return f"style-{number + 1}-mask.png"


def style_region(number: int) -> str:
    return f"style-{number + 1}-region.png"


class Shelf:
    """All runs of a folder, which one server at a time holds."""

    def __init__(self, folder: Path) -> None:
        """Raises SettingsError, one line, where it can't be written, or another server holds it."""
        self.folder = folder.absolute()
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = open(self.folder / "lock", "a+b")  # noqa: SIM115  (held until `close`)
        except OSError as error:
            reason = error.strerror or error
            raise SettingsError(f"cannot keep runs in {folder}: {reason}; choose another --folder") from error
        if not lock(self._lock):
            self._lock.close()
            raise SettingsError(f"another nstgpu serve has the folder {folder}; end it, or choose another --folder")
        for left in (_INCOMING, _GONE):
            shutil.rmtree(self.folder / left, ignore_errors=True)

    def close(self) -> None:
        self._lock.close()

    def place(self, run: str) -> Path:
        """The folder of a run; raises ValueError for what is no name of one."""
        if not RUN_ID.fullmatch(run):
            raise ValueError("no such run")
        return self.folder / run

    def records(self, say: Callable[[str], None]) -> list[Record]:
        """All that can be read, oldest first; of a folder that can't, one line is said."""
        found = []
        for name in sorted(os.listdir(self.folder)):
            if not RUN_ID.fullmatch(name) or (self.folder / name).is_symlink():
                continue
            clean(self.folder / name)
            try:
                found.append(self._record(name))
            except (OSError, ValueError, RecursionError) as error:
                say(f"note: the run {self.folder / name} is left out: its {JOB} {error}")
        return found

    def _record(self, name: str) -> Record:
        file = self.folder / name / JOB
        if file.stat().st_size > _LONGEST_RECORD:
            raise ValueError("is too large")
        record = from_json(Record, json.loads(file.read_text(encoding="utf-8")))
        if record.id != name or not 1 <= record.styles <= 1000:
            raise ValueError("is another run's")
        return record

    def write(self, record: Record) -> None:
        write_whole(self.place(record.id) / JOB, json.dumps(asdict(record), indent=1).encode())

    def begin(self, record: Record, staged: Path) -> None:
        """Makes a staged folder that of a run; it is there whole or not at all."""
        write_whole(staged / JOB, json.dumps(asdict(record), indent=1).encode())
        os.replace(staged, self.place(record.id))

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder to put a run together in; what is still there in the end is removed."""
        incoming = self.folder / _INCOMING
        incoming.mkdir(exist_ok=True, mode=0o700)
        staged = Path(tempfile.mkdtemp(dir=incoming))
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def remove(self, run: str) -> None:
        """Gone at once for whoever looks, then removed."""
        gone = self.folder / _GONE
        gone.mkdir(exist_ok=True, mode=0o700)
        os.replace(self.place(run), gone / run)
        shutil.rmtree(gone / run, ignore_errors=True)

    def copy(self, run: str, name: str, target: Path) -> None:
        """A picture of one run as another's; inputs are never written again, so that one file can be both's."""
        source = self.place(run) / name
        try:
            os.link(source, target / name)
        except OSError:
            shutil.copyfile(source, target / name)

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.folder).free


def lock(file: IO[bytes]) -> bool:
    """Locks an open file for as long as it, or a copy that a child process has, is open; False where it is locked."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
