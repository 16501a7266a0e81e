"""Threads that share items of work, and a BLAS that is told to keep to one thread meanwhile."""

import threading

import pytest

from nstgpu.kernels import open_device
from nstgpu.kernels.blas import find_openblas, single_threaded
from nstgpu.kernels.device import DeviceError
from nstgpu.kernels.workers import Workers


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


@pytest.mark.skipif(find_openblas() is None, reason="NumPy computes with another BLAS than OpenBLAS")
def test_blas_threads_are_as_before_when_the_last_block_ends() -> None:
    blas = find_openblas()
    assert blas is not None
    before = blas.get_num_threads()
    with single_threaded():
        with single_threaded():
            assert blas.get_num_threads() == 1
        assert blas.get_num_threads() == 1
    assert blas.get_num_threads() == before


def test_threads_are_checked() -> None:
    with pytest.raises(DeviceError, match="at least 1"):
        open_device("cpu", threads=0)
    with pytest.raises(DeviceError, match="cpu"):
        open_device("reference", threads=2)
