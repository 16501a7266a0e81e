"""Threads that share items of work, and a BLAS that is told to keep to one thread meanwhile."""

import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import nstgpu
from nstgpu.kernels import open_device
from nstgpu.kernels.cpu.openblas import OpenBlas, find_openblas, single_threaded
from nstgpu.kernels.cpu.thread_pool import MOST_THREADS, Workers
from nstgpu.kernels.errors import DeviceError


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("items", [0, 1, 3, 100])
def test_every_item_is_done_once(count: int, items: int) -> None:
    done: list[int] = []
    Workers(count).run(lambda _, item: done.append(item), range(items))
    assert sorted(done) == list(range(items))


def test_workers_run_side_by_side_each_with_a_number_of_its_own() -> None:
    barrier, seen = threading.Barrier(3, timeout=20), []

    def meet(worker: int, item: int) -> None:
        barrier.wait()  # passes only when three items are under way at once
        seen.append((worker, item))

    Workers(3).run(meet, range(3))
    assert {worker for worker, _ in seen} == {0, 1, 2}


def test_an_error_in_any_worker_comes_out() -> None:
    def fail(_: int, item: int) -> None:
        if item == 7:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Workers(3).run(fail, range(20))


@pytest.fixture
def two_blas_threads() -> Iterator[OpenBlas | None]:
    """NumPy's BLAS with two threads, however many it has in other tests; None if it is not OpenBLAS."""
    blas = find_openblas()
    before = 0 if blas is None else blas.get_num_threads()
    if blas is not None:
        blas.set_num_threads(2)
    yield blas
    if blas is not None:
        blas.set_num_threads(before)


@pytest.mark.skipif(find_openblas() is None, reason="NumPy computes with another BLAS than OpenBLAS")
def test_blas_threads_are_as_before_when_the_last_block_ends(two_blas_threads: OpenBlas) -> None:
    blas = two_blas_threads
    with single_threaded():
        with single_threaded():
            assert blas.get_num_threads() == 1
        assert blas.get_num_threads() == 1
    assert blas.get_num_threads() == 2


def test_threads_are_checked() -> None:
    with pytest.raises(DeviceError, match="at least 1"):
        open_device("cpu", threads=0)
    with pytest.raises(DeviceError, match="cpu"):
        open_device("reference", threads=2)
    for name in ("cpu", "cpu:0,1"):
        with pytest.raises(DeviceError, match=r"^threads is 100000; 256 at most"):
            nstgpu.kernels.open_devices(name, threads=100_000)


def test_as_many_threads_as_may_be_asked_for_compute_the_same() -> None:
    """Which is what the limit is for: OpenBLAS ends the process where more call it than it has room for."""
    features = np.random.default_rng(0).random((64, 2048, 16), np.float32)
    few, many = (open_device("cpu", threads=threads) for threads in (1, MOST_THREADS))
    grams = [np.empty((16, 16), np.float32) for _ in range(2)]
    for device, out in zip((few, many), grams, strict=True):
        device.bind_workspace(np.empty(1 << 20, np.uint8))
        device.gram(features, out)
    np.testing.assert_array_equal(grams[0], grams[1])


def test_threads_that_the_system_does_not_start_are_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, list[threading.Thread]()

    def limited(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    workers = Workers(8)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", limited)
        with pytest.raises(DeviceError, match=r"8 threads can't be started .*use fewer"):
            workers.run(lambda _, __: time.sleep(0.01), range(50))
    done: list[int] = []
    workers.run(lambda _, item: done.append(item), range(50))
    assert sorted(done) == list(range(50))


def test_threads_end_with_their_workers() -> None:
    before = set(threading.enumerate())
    workers = Workers(4)
    workers.run(lambda _, __: time.sleep(0.001), range(20))
    own = set(threading.enumerate()) - before
    assert len(own) == 3
    del workers
    for thread in own:
        thread.join(20)
        assert not thread.is_alive()


def test_nothing_of_a_run_is_kept_when_it_ends() -> None:
    class Nap:
        def __call__(self, _worker: int, _item: int) -> None:
            time.sleep(0.001)

    workers, nap = Workers(3), Nap()
    seen = weakref.ref(nap)
    workers.run(nap, range(20))
    del nap
    end = time.monotonic() + 20
    while seen() is not None and time.monotonic() < end:  # a thread lets go of its job just after the end
        time.sleep(0.001)
    assert seen() is None


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
may_fork = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def _code_of_child(work: Callable[[], object], seconds: float = 20) -> int:
    """Of a forked child that does this; a child that hangs is ended, and its code is below zero."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@forks
@may_fork
def test_a_child_makes_threads_of_its_own_and_the_parent_keeps_its_own() -> None:
    def sums() -> None:
        done: list[int] = []
        workers.run(lambda _, item: done.append(item), range(20))
        assert sorted(done) == list(range(20))

    workers = Workers(3)
    sums()  # so that threads exist
    assert _code_of_child(sums) == 0
    sums()


@forks
@may_fork
def test_a_child_forked_in_the_middle_of_another_threads_work_does_not_wait_for_it(
    two_blas_threads: OpenBlas | None,
) -> None:
    blas = two_blas_threads
    workers, begun, go_on = Workers(2), threading.Event(), threading.Event()

    def hold(_worker: int, _item: int) -> None:
        begun.set()
        go_on.wait(20)

    def child() -> None:
        assert blas is None or blas.get_num_threads() == 2  # the block that was open is the parent's
        done: list[int] = []
        workers.run(lambda _, item: done.append(item), range(9))
        assert len(done) == 9

    other = threading.Thread(target=workers.run, args=(hold, range(2)))
    other.start()
    try:
        assert begun.wait(20)
        assert _code_of_child(child) == 0
    finally:
        go_on.set()
        other.join()


@forks
@may_fork
def test_a_style_transfer_from_before_the_fork_gives_the_same_after_it() -> None:
    """Both ways to fork, with threads that have worked in the parent."""
    rng = np.random.default_rng(0)
    content, style = (rng.random((40, 48, 3), np.float32) for _ in range(2))
    transfer = nstgpu.StyleTransfer(
        content, style, weights=nstgpu.load_weights("random:0"), device="cpu", threads=2,
        content_layers=["relu2_1"], style_layers=["relu1_1"],
    )  # fmt: skip
    expected = transfer.run(2, min_size=32).image.tobytes()

    def repeat() -> None:
        assert transfer.run(2, min_size=32).image.tobytes() == expected

    assert _code_of_child(repeat) == 0
    process = multiprocessing.get_context("fork").Process(target=repeat)
    process.start()
    process.join(20)
    hangs = process.is_alive()
    process.kill()
    process.join()
    assert not hangs
    assert process.exitcode == 0
    repeat()
