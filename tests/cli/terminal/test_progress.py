"""What a user sees of a run under way: on terminals of any width, and where standard error is none."""

import os
import re
import subprocess
import sys

import pytest

from nstgpu.cli.terminal.progress import FIRST_LINE, NEXT_LINE, clock, pulse, shown
from nstgpu.engine.costs.terms import Costs
from nstgpu.engine.optimizers.coarse_to_fine import Progress


def progress(iteration: int, seconds: float) -> Progress:
    def none() -> None:
        raise AssertionError("asked for more than numbers")

    costs = Costs(46110.0, 1.0, 1.0, 1.0)
    return Progress(
        iteration, 500, costs, seconds, 83.0, 3, 5, (272, 362), none, none, none  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals")
@pytest.mark.parametrize(
    ("width", "whole"),
    [
        (24, r"130/500 +1:23 left"),
        (40, r"3/5 [━╸╺]+ 130/500 +1:23 left"),
        (60, r"3/5 [━╸╺]+ 130/500 cost 4\.611e\+04 +1:23 left"),
        (80, r"scale 3/5 362x272 [━╸╺]+ 130/500 cost 4\.611e\+04 +1:23 left"),
        (200, r"scale 3/5 362x272 [━╸╺]+ 130/500 cost 4\.611e\+04 32\.5 it/s 1:23 left"),
    ],
)
def test_a_narrow_terminal_keeps_counter_and_time(width: int, whole: str) -> None:
    """At the foot of a pseudo-terminal of this width, as a person reads it."""
    code = "import runpy\nfrom nstgpu.cli.terminal.progress import shown\n"
    code += (
        f"progress = runpy.run_path({__file__!r})['progress']\nwith shown(500) as show:\n    show(progress(130, 4.0))"
    )
    ours, theirs = os.openpty()
    environment = {**os.environ, "COLUMNS": str(width), "LINES": "10", "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env=environment)
    os.close(theirs)
    text = b""
    try:
        while part := os.read(ours, 4096):
            text += part
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0, text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode())
    last = plain.replace("\r", "\n").rstrip("\n").splitlines()[-1]
    assert len(last) <= width
    assert re.search(whole, last), last
    assert "…" not in last


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("nstgpu.cli.terminal.progress.pulse", lambda: pulse(lambda: now))
    with shown(500) as show:
        for iteration in range(1, 31):
            now = float(iteration)
            show(progress(iteration, now))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "scale 3/5 362x272: 2 of 500, cost 4.611e+04, 1.0 it/s, 1:23 left"
    assert [int(line.split()[3]) for line in lines] == [2, 12, 22]


def test_when_a_line_is_due() -> None:
    now = 0.0
    due = pulse(lambda: now)
    assert not due()
    now = FIRST_LINE
    assert (due(), due()) == (True, False)
    now += NEXT_LINE
    assert due()


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3723, "1:02:03")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
