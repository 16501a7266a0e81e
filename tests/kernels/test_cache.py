"""The cache of compiled kernels: whom its folder may belong to, processes that share and damage it, how it shrinks."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nstgpu.kernels import cache, emulator
from nstgpu.kernels.cache import Entry, cache_directory, cached, digest
from nstgpu.kernels.cuda.runtime.nvrtc import FOLDER
from nstgpu.kernels.emulator import NoCompilerError, compile_library, find_compiler

KEY = digest(b"a key")
UNIX = pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has no modes")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NSTGPU_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def entry_of(content: bytes, key: str = KEY, kind: str = "cubin") -> Entry:
    return cached(cache_directory(kind), key, ".cubin", lambda target: target.write_bytes(content))


def planted(folder: Path, content: bytes) -> Path:
    """An entry as somebody else would put it there, who knows how entries are named."""
    path = folder / f"{KEY}-{digest(content)}.cubin"
    path.write_bytes(content)
    return path


# ---- whom it may belong to ------------------------------------------------------------------------------------------
@UNIX
def test_what_is_made_is_this_users_alone(base: Path) -> None:
    before = os.umask(0)
    try:
        path = entry_of(b"ours").path
    finally:
        os.umask(before)
    assert [oct(place.stat().st_mode & 0o777) for place in (base, base / "cubin", path)] == ["0o700", "0o700", "0o600"]
    assert cache.cache_problem() is None


@UNIX
@pytest.mark.parametrize("writable", ["cubin", "", ".."])
def test_a_folder_that_others_can_write_is_not_trusted(
    base: Path, writable: str, caplog: pytest.LogCaptureFixture
) -> None:
    entry_of(b"ours")
    evil = planted(base / "cubin", b"evil")
    (base / writable).chmod(0o777)
    entry = entry_of(b"ours")
    assert entry.content == b"ours"
    assert entry.path.parent.parent.parent != base.parent
    assert not entry.path.is_relative_to(base)
    folder = (base / writable).resolve()
    assert f"others may write {folder}; chmod go-w {folder}, or set NSTGPU_CACHE_DIR" in caplog.text
    assert evil.exists()
    (base / writable).chmod(0o700)
    assert cache_directory("cubin") == base / "cubin"


@UNIX
def test_a_sticky_folder_above_is_fine(base: Path) -> None:
    base.parent.chmod(0o1777)
    assert entry_of(b"ours").path.is_relative_to(base)


@UNIX
def test_a_folder_of_another_user_is_not_trusted(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = cache_directory("cubin")
    if os.geteuid() == 0:
        os.chown(directory, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    problem = cache.problem_of(directory)
    assert problem is not None
    assert problem.endswith("belongs to another user; set NSTGPU_CACHE_DIR to a folder of your own")
    assert not entry_of(b"ours").path.is_relative_to(base)


@UNIX
@pytest.mark.usefixtures("base")
def test_a_group_is_trusted_only_if_nobody_else_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = cache_directory("cubin")
    directory.chmod(0o770)
    monkeypatch.setattr(cache, "_is_a_group_of_one", lambda _: False)
    assert "others may write" in (cache.problem_of(directory) or "")
    monkeypatch.setattr(cache, "_is_a_group_of_one", lambda _: True)
    assert cache.problem_of(directory) is None


@UNIX
@pytest.mark.parametrize("kind", ["writable", "link", "folder"])
def test_an_entry_that_others_made_is_not_read(base: Path, tmp_path: Path, kind: str) -> None:
    path = planted(cache_directory("cubin"), b"evil")
    if kind == "writable":
        path.chmod(0o666)
    else:
        path.unlink()
        path.mkdir() if kind == "folder" else path.symlink_to(planted(tmp_path, b"evil"))
    assert entry_of(b"ours").content == b"ours"
    assert entry_of(b"evil", digest(b"another")).path.is_relative_to(base)


def test_a_folder_in_an_entrys_place_is_named(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = entry_of(b"ours").path
    path.unlink()
    path.mkdir()
    entry = entry_of(b"ours")
    assert entry.content == entry.path.read_bytes() == b"ours"
    assert base not in entry.path.parents
    assert [record.message for record in caplog.records] == [
        f"compiled kernels cannot be kept: {path} is a folder; remove it"
    ]


def test_no_home_to_write_in_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "home").write_text("")
    monkeypatch.delenv("NSTGPU_CACHE_DIR", raising=False)
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    assert [entry_of(content, digest(content)).content for content in (b"one", b"two")] == [b"one", b"two"]
    (said,) = {record.message for record in caplog.records}
    assert said.startswith("compiled kernels cannot be kept: ")
    assert said.endswith("; set NSTGPU_CACHE_DIR to a folder of your own")
    assert len(caplog.records) == 1


@pytest.mark.slow
def test_the_emulator_works_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        find_compiler()
    except NoCompilerError as error:
        pytest.skip(str(error))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NSTGPU_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr("nstgpu.kernels.emulator.compiler.RUNTIME_FLAGS", ("-O0",))
    source = tmp_path / "one.cu"
    source.write_text(
        f'#include "{FOLDER / "common" / "platform.cuh"}"\nextern "C" __global__ void one(float* x) {{ *x = 1; }}\n'
    )
    x = np.zeros(1, np.float32)
    compile_library([source]).launch("one", 1, 1, [x])
    assert x == 1


def test_a_library_that_vanishes_before_it_is_loaded_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process clears the cache each time; what this one keeps to itself stays."""
    asked: list[Path | None] = []

    def build(*_: Any, directory: Path | None, **__: Any) -> Path:
        asked.append(directory)
        return tmp_path / "gone.so" if directory is None else directory / "here.so"

    def load(path: Path, **_: Any) -> Path:
        if path.name == "gone.so":
            raise OSError(f"{path}: cannot open shared object file")
        return path

    monkeypatch.setattr(emulator, "build_library", build)
    monkeypatch.setattr(emulator, "Library", load)
    private = cache.temporary_directory("emulator")
    loaded: Any = compile_library([])
    assert loaded == private / "here.so"
    assert asked == [None, None, private]


# ---- shared with other processes ------------------------------------------------------------------------------------
SHARING = """
import os, random, shutil, sys
from pathlib import Path
from nstgpu.kernels.cache import cache_directory, cached, digest

draw = random.Random(int(sys.argv[1]))
for _ in range(150):
    number = draw.randrange(3)
    content = b"%d" % number * 1000
    key = digest(b"key %d" % number)
    entry = cached(cache_directory("cubin"), key, ".cubin", lambda target: target.write_bytes(content))
    assert entry.content == content
    path, harm = entry.path, draw.randrange(6)
    try:
        if harm == 0:
            path.unlink()
        elif harm == 1:
            path.write_bytes(b"rubbish")
        elif harm == 2:
            path.unlink()
            path.mkdir()
        elif harm == 3:
            path.rmdir()
        elif harm == 4 and draw.random() < 0.2:
            shutil.rmtree(path.parent)
    except OSError:
        pass
"""


def test_processes_that_remove_and_damage_entries_harm_nobody(base: Path) -> None:
    command = [sys.executable, "-c", SHARING]
    running = [subprocess.Popen([*command, str(seed)], stderr=subprocess.PIPE, text=True) for seed in range(4)]
    said = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0] * 4, said
    assert base.exists()


COLD = """
import sys, time
from pathlib import Path
from nstgpu.kernels.cache import cache_directory, cached, digest

def produce(target):
    with open(sys.argv[1], "a") as made:
        made.write("x")
    time.sleep(1)
    target.write_bytes(b"compiled")

print(cached(cache_directory("cubin"), digest(b"cold"), ".cubin", produce).content.decode())
"""


@UNIX
def test_of_processes_that_find_the_cache_empty_one_compiles(base: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", COLD, str(tmp_path / "made")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    assert [process.communicate()[0] for process in running] == ["compiled\n"] * 8
    assert (tmp_path / "made").read_text() == "x"
    (entry,) = (base / "cubin").iterdir()  # and no lock is left
    assert entry.read_bytes() == b"compiled"


@UNIX
def test_a_lock_that_is_never_let_go_costs_time_and_nothing_else(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    lock = cache_directory("cubin") / f"tmp{KEY}.new.cubin"
    with lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        monkeypatch.setattr(cache, "MOST_SECONDS", 0.1)
        assert entry_of(b"ours").path.is_relative_to(base)
        assert lock.exists()
    assert entry_of(b"another", digest(b"another")).content == b"another"


@pytest.mark.usefixtures("base")
def test_an_entry_made_whole_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process replaces a damaged entry after this one has read it, alone and then with the lock."""
    path = entry_of(b"ours").path
    path.write_bytes(b"rubbish")
    read, seen = cache._read, list[bytes | None]()

    def read_and_let_another_mend(entry: Path) -> bytes | None:
        seen.append(read(entry))
        if len(seen) == 2:
            entry.write_bytes(b"ours")
        return seen[-1]

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_read", read_and_let_another_mend)
        patch.setattr(os, "replace", lambda *_: pytest.fail("stop here"))
        with pytest.raises(pytest.fail.Exception):
            entry_of(b"ours")
    assert seen == [b"rubbish", b"rubbish"]
    assert path.read_bytes() == b"ours"


# ---- how it shrinks -------------------------------------------------------------------------------------------------
def aged(path: Path, days: float) -> Path:
    then = time.time() - days * cache.DAY
    os.utime(path, (then, then))
    return path


def test_what_nobody_uses_goes_and_what_is_used_stays(base: Path) -> None:
    old = aged(entry_of(b"old", digest(b"old")).path, 31)
    used = aged(entry_of(b"used", digest(b"used")).path, 29)
    left = base / "cubin" / "tmpabc.new.cubin"
    left.write_bytes(b"half of it")
    aged(left, 2)
    foreign = base / "cubin" / "notes.txt"
    foreign.write_text("mine")
    aged(foreign, 100)
    assert entry_of(b"not made again", digest(b"used")).content == b"used"
    assert time.time() - used.stat().st_mtime < 60
    entry_of(b"new", digest(b"new"))
    assert [path.exists() for path in (old, used, left, foreign)] == [False, True, False, True]


def test_over_the_limit_what_was_used_longest_ago_goes_first(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [aged(entry_of(bytes(100), digest(b"%d" % age)).path, age) for age in (5, 4, 3, 2)]
    monkeypatch.setattr(cache, "LIMIT_BYTES", 350)
    entry_of(bytes(100), digest(b"new"))
    assert [path.exists() for path in paths] == [False, False, True, True]
    assert base.exists()


def test_clearing_removes_entries_and_nothing_else(base: Path, tmp_path: Path) -> None:
    entry_of(b"one")
    entry_of(b"two", digest(b"two"), "emulator")
    precious = tmp_path / "precious"
    precious.write_text("mine")
    link = base / "cubin" / f"{digest(b'a')}-{digest(b'b')}.cubin"
    link.symlink_to(precious)
    others = [base / "cubin" / "notes.txt", base / "weights" / "vgg19.h5"]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert [(kept.kind, kept.files, kept.bytes) for kept in cache.kept()] == [("cubin", 1, 3), ("emulator", 1, 3)]
    assert [kept.files for kept in cache.clear()] == [1, 1]
    assert [kept.files for kept in cache.kept()] == [0, 0]
    assert all(path.read_text() == "mine" for path in (precious, link, *others))


def test_an_empty_machine_has_an_empty_cache(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert [kept.files for kept in (*cache.kept(), *cache.clear())] == [0] * 4
    assert not base.exists()
    assert not caplog.text
