"""How much memory there is: the least that the system, any control group or the process's own limits leave."""

import subprocess
import sys
from pathlib import Path

import pytest

from nstgpu.engine.memory.limits import host_memory

PLENTY = 20_000_000 * 1024
NO_LIMIT = 9223372036854771712


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:       24000000 kB\nMemFree: 1000 kB\nMemAvailable:   20000000 kB\n")
    return path


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / f"memory.{name}").write_text(f"{value}\n")


def own(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "own"
    path.write_text(text)
    return path


def test_without_groups_it_is_what_the_system_says(tmp_path: Path, meminfo: Path) -> None:
    assert host_memory(meminfo, tmp_path / "none", tmp_path / "none") == PLENTY
    assert host_memory(tmp_path / "none", tmp_path / "none", tmp_path / "none") is None


def test_a_group_of_version_2_gives_back_what_it_caches(tmp_path: Path, meminfo: Path) -> None:
    root, mine = tmp_path / "cgroup", own(tmp_path, "0::/\n")
    group(root, max="max", current=3_000_000_000, stat="anon 1\ninactive_file 400000000\nactive_file 100000000")
    assert host_memory(meminfo, root, mine) == PLENTY
    group(root, max=4_000_000_000)
    assert host_memory(meminfo, root, mine) == 1_500_000_000
    group(root, high=3_000_000_000)  # above which it is slowed down to a crawl
    assert host_memory(meminfo, root, mine) == 500_000_000
    group(root, current=5_000_000_000)
    assert host_memory(meminfo, root, mine) == 0


@pytest.mark.parametrize("mounted", ["", "unified"])
@pytest.mark.parametrize("limited", ["", "user.slice", "user.slice/job 7.scope"])
def test_a_limit_of_any_group_around_counts(tmp_path: Path, meminfo: Path, mounted: str, limited: str) -> None:
    root, mine = tmp_path / "cgroup", own(tmp_path, "12:cpu:/\n0::/user.slice/job 7.scope\n")
    for place in ("user.slice", "user.slice/job 7.scope"):
        group(root / mounted / place, max="max", high="max", current=1000, stat="file 0")
    group(root / mounted / limited, max=5000, high="max", current=1000, stat="file 0")
    assert host_memory(meminfo, root, mine) == 4000


@pytest.mark.parametrize("limited", ["", "docker", "docker/abc"])
def test_version_1_is_seen_too(tmp_path: Path, meminfo: Path, limited: str) -> None:
    root, mine = tmp_path / "cgroup", own(tmp_path, "5:cpu,cpuacct:/x\n4:hugetlb,memory:/docker/abc\n0::/\n")
    statistics = (
        f"inactive_file 1\ntotal_inactive_file 200\ntotal_active_file 100\nhierarchical_memory_limit {NO_LIMIT}"
    )
    for place in ("", "docker", "docker/abc"):
        group(root / "memory" / place, limit_in_bytes=NO_LIMIT, usage_in_bytes=1000, stat=statistics)
    assert host_memory(meminfo, root, mine) == PLENTY
    group(root / "memory" / limited, limit_in_bytes=5000)
    assert host_memory(meminfo, root, mine) == 4300


def test_a_container_that_sees_its_own_group_alone_knows_limits_around_it(tmp_path: Path, meminfo: Path) -> None:
    """Its path is the host's, and not to be found."""
    root, mine = tmp_path / "cgroup", own(tmp_path, "4:memory:/kubepods/pod1/abc\n")
    statistics = "hierarchical_memory_limit 7000"
    group(root / "memory", limit_in_bytes=NO_LIMIT, usage_in_bytes=1000, stat=statistics)
    assert host_memory(meminfo, root, mine) == 6000


@pytest.mark.parametrize("text", ["", "nonsense\n", "0::/../outside\n", "4:memory\n"])
def test_a_list_of_groups_that_nobody_can_read_is_none(tmp_path: Path, meminfo: Path, text: str) -> None:
    root = tmp_path / "cgroup"
    group(root, max="banana", current="", stat="a b c\nd")
    assert host_memory(meminfo, root, own(tmp_path, text)) == PLENTY
    group(root, max=3000, current=1000)
    assert host_memory(meminfo, root, own(tmp_path, text)) == 2000


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are read from /proc")
@pytest.mark.parametrize("kind", ["RLIMIT_DATA", "RLIMIT_AS"])
def test_the_limits_of_the_process_count(kind: str) -> None:
    script = (
        "import resource\nfrom nstgpu.engine.memory.limits import host_memory\n"
        f"resource.setrlimit(resource.{kind}, (6 << 30, resource.RLIM_INFINITY))\n"
        "few = 1 << 20\nassert host_memory() < 6 << 30\n"
        f"resource.setrlimit(resource.{kind}, (few, resource.RLIM_INFINITY))\nassert host_memory() == 0"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
