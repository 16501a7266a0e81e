"""How much memory is left: of the device, of the host, of control groups and of the limits of the process."""

from collections.abc import Iterable
from pathlib import Path

from ...kernels.device import Device

_NO_LIMIT = 1 << 60
"""Version 1 of control groups writes the largest number of pages for none."""


def available(device: Device) -> int | None:
    """Bytes that the device could still hand out; None where nobody says."""
    own = device.free_bytes()
    return host_memory() if own is None else own


def host_memory(
    meminfo: Path = Path("/proc/meminfo"),
    groups: Path = Path("/sys/fs/cgroup"),
    own: Path = Path("/proc/self/cgroup"),
) -> int | None:
    """What the system calls available, and no more than this process's control groups and its own limits leave it.

    groups: where control groups of either version are mounted. own: which of them this process is in.
    """
    known = [_meminfo(meminfo), _control_groups(groups, own), *_own_limits()]
    return min((limit for limit in known if limit is not None), default=None)


def _meminfo(path: Path) -> int | None:
    return _in_kib(path).get("MemAvailable:")


def _control_groups(root: Path, own: Path) -> int | None:
    """The least that any group of this process has left, from its own up to the outermost that can be seen."""
    try:
        lines = [line.split(":", 2) for line in own.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        lines = []
    mine = {kind: place for line in lines if len(line) == 3 for kind, place in [(line[1], line[2])]}
    first = next((place for kinds, place in mine.items() if "memory" in kinds.split(",")), "/")
    known = [_left_in_group(folder) for folder in _up(root / "memory", first)]
    for mounted in (root, root / "unified"):  # where version 2 is alone, and beside version 1
        known += [_left_in_group_2(folder) for folder in _up(mounted, mine.get("", "/"))]
    return min((left for left in known if left is not None), default=None)


def _up(mounted: Path, place: str) -> list[Path]:
    """The folder of a group and those around it; a container may see the outermost alone, under a name of its own."""
    parts = [part for part in place.split("/") if part not in ("", ".", "..")]
    return [mounted.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _left_in_group_2(folder: Path) -> int | None:
    limits = [_number(folder / name) for name in ("memory.max", "memory.high")]  # "max" is no number
    cached = ("inactive_file", "active_file")
    return _left(limits, _number(folder / "memory.current"), folder / "memory.stat", cached)


def _left_in_group(folder: Path) -> int | None:
    """Of version 1; its statistics know of limits around it that a container can't see."""
    around = _statistics(folder / "memory.stat").get("hierarchical_memory_limit")
    limits = [_number(folder / "memory.limit_in_bytes"), around]
    cached = ("total_inactive_file", "total_active_file")
    return _left(limits, _number(folder / "memory.usage_in_bytes"), folder / "memory.stat", cached)


def _left(limits: Iterable[int | None], used: int | None, statistics: Path, cached: Iterable[str]) -> int | None:
    """Of the lowest limit; cached files, passing ones among them, would give way."""
    set_ones = [limit for limit in limits if limit is not None and limit < _NO_LIMIT]
    if not set_ones or used is None:
        return None
    counts = _statistics(statistics)
    return max(0, min(set_ones) - max(0, used - sum(counts.get(name, 0) for name in cached)))


def _statistics(path: Path) -> dict[str, int]:
    try:
        pairs = [line.split() for line in path.read_text(encoding="ascii", errors="replace").splitlines()]
    except OSError:
        return {}
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii", errors="replace"))
    except (OSError, ValueError):
        return None


def _own_limits(status: Path = Path("/proc/self/status")) -> list[int]:
    """What `ulimit -d` leaves, of memory of the process's own, which mapped files are not, and `ulimit -v`, of all."""
    try:
        import resource
    except ImportError:
        return []
    used = _in_kib(status)
    known = [(resource.RLIMIT_DATA, "VmData:"), (resource.RLIMIT_AS, "VmSize:")]
    limits = [(resource.getrlimit(kind)[0], used.get(name)) for kind, name in known]
    return [max(0, limit - taken) for limit, taken in limits if limit != resource.RLIM_INFINITY and taken is not None]


def _in_kib(path: Path) -> dict[str, int]:
    """Bytes by name, of a file of lines such as `VmData:  1000 kB`."""
    try:
        lines = [line.split() for line in path.read_text(encoding="ascii", errors="replace").splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) * 1024 for line in lines if len(line) == 3 and line[2] == "kB"}
