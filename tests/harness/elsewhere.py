"""Runs `nstgpu` as if on Windows or macOS: python elsewhere.py PLATFORM ARGUMENT...

What that platform's Python lacks is taken away before anything of the package is imported; its libraries (NumPy, Pillow
and so on) are imported first, since those that are installed here were built for this platform. What Windows does
otherwise, such as files that cannot be replaced while they are open, is not simulated.
"""

import os
import signal
import sys
import sysconfig
from typing import Any

import h5py
import numpy
import PIL.Image
import platformdirs
import rich.progress
import typer

LIBRARIES = (PIL.Image, h5py, numpy, platformdirs, rich.progress, typer)
MODULES = {"win32": ("fcntl", "grp", "pwd", "resource", "termios", "tty"), "darwin": ()}
"""That cannot be imported there."""
LACKING: dict[str, dict[Any, tuple[str, ...]]] = {
    "win32": {
        os: (
            "O_CLOEXEC", "O_DIRECTORY", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK", "chown", "fchmod", "fchown", "fork",
            "geteuid", "getpgid", "getuid", "killpg", "lchown", "mkfifo", "posix_fadvise", "posix_fallocate",
            "register_at_fork", "sched_getaffinity", "setsid", "sysconf", "uname", "wait4", "waitid",
        ),
        signal: ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGUSR1", "SIGUSR2", "setitimer"),
    },
    "darwin": {os: ("posix_fadvise", "posix_fallocate", "sched_getaffinity")},
}  # fmt: skip


def no_proc(event: str, arguments: tuple[object, ...]) -> None:
    """Neither has /proc."""
    if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith("/proc/"):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])


def move_to(platform: str) -> None:
    """Makes this process one on `platform`."""
    sysconfig.get_config_vars()  # of this one, which the standard library asks for
    for name in MODULES[platform]:
        sys.modules[name] = None  # type: ignore[assignment]  # which is how an import is made to fail
    for module, names in LACKING[platform].items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    sys.addaudithook(no_proc)
    sys.platform = platform


if __name__ == "__main__":
    move_to(sys.argv[1])
    from nstgpu.cli import app

    sys.argv = ["nstgpu", *sys.argv[2:]]
    app()
