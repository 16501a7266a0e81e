"""`nstgpu batch`: what is painted, under which name, and what becomes of what cannot be."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.commands import PROGRAM, nstgpu
from nstgpu.batch.tasks import Outcome, Task
from nstgpu.cli.many.watch import Watch
from nstgpu.engine.imaging import files as images
from nstgpu.runs.settings import Options

QUICK = ["--weights", "small.h5", "--size", "32", "--min-size", "16", "--iterations", "2", "--device", "cpu"]
QUICK += ["--threads", "1"]


@pytest.fixture(autouse=True)
def many(folder: Path) -> Path:
    """pictures/ with a.png, b.png and notes.txt, beside content.jpg, style.png and small.h5."""
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(1)
    for name in "ab":
        images.save(folder / "pictures" / f"{name}.png", rng.random((24, 32, 3)))
    (folder / "pictures" / "notes.txt").write_text("no picture")
    return folder


def batch(*arguments: str, code: int = 0) -> dict[str, Any]:
    """The report of a batch that ends in this code."""
    done = nstgpu("batch", *arguments, *QUICK, "-o", "out")
    assert done.exit_code == code, done.output
    told: dict[str, Any] = json.loads(Path("out/report.json").read_text())
    return told


def refused(*arguments: str) -> str:
    """The one line that a command says that ends in code 2."""
    done = nstgpu(*arguments)
    assert done.exit_code == 2, done.output
    (line,) = done.output.splitlines()
    return line


def states(report: dict[str, Any]) -> list[tuple[str, str]]:
    return [(Path(picture["output"]).name, picture["state"]) for picture in report["pictures"]]


def test_contents_times_styles_have_the_bytes_of_run() -> None:
    shutil.copy("content.jpg", "second.jpg")
    report = batch("pictures", "content.jpg", "--style", "style.png", "--style", "second.jpg")
    assert states(report) == [
        (f"{content}_{style}_32.png", "painted") for style in ("style", "second") for content in ("a", "b", "content")
    ]
    for content, style in (("pictures/b.png", "style.png"), ("content.jpg", "second.jpg")):
        assert nstgpu("run", content, style, *QUICK, "-o", "one.png", "--force").exit_code == 0
        name = f"out/{Path(content).stem}_{Path(style).stem}_32.png"
        assert Path("one.png").read_bytes() == Path(name).read_bytes()
    page = Path("out/report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 6
    assert 'href="a_style_32.png"' in page


def test_what_is_there_is_skipped_and_what_is_otherwise_is_refused() -> None:
    batch("pictures", "--style", "style.png")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in Path("out").glob("*.png")}
    os.remove("out/a_style_32.png")
    assert states(batch("pictures", "--style", "style.png")) == [
        ("a_style_32.png", "painted"), ("b_style_32.png", "skipped")
    ]  # fmt: skip
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in Path("out").glob("*.png")}
    a, b = Path("out/a_style_32.png"), Path("out/b_style_32.png")
    assert before[b] == after[b]
    assert before[a][1] == after[a][1]
    said = refused("batch", "pictures", "--style", "style.png", *QUICK, "-o", "out", "--seed", "7")
    assert "a_style_32.png exists already and was painted otherwise (seed); --force" in said
    assert states(batch("pictures", "--style", "style.png", "--seed", "7", "--force"))[1][1] == "painted"
    images.save("style.png", np.random.default_rng(9).random((20, 20, 3)))
    assert "painted otherwise (styles)" in refused(
        "batch", "pictures", "--style", "style.png", *QUICK, "-o", "out", "--seed", "7"
    )
    images.save(b, np.zeros((8, 8, 3)))
    assert "b_style_32.png exists already and has no recipe" in refused(
        "batch", "pictures/b.png", "--style", "style.png", *QUICK, "-o", "out"
    )


def test_what_fails_is_a_line_of_the_report() -> None:
    Path("pictures/0.png").write_bytes(b"no picture at all")
    done = nstgpu("batch", "pictures", "missing.png", "--style", "style.png", *QUICK, "-o", "out", "--retry", "1")
    assert done.exit_code == 3, done.output
    report = json.loads(Path("out/report.json").read_text())
    assert [picture["state"] for picture in report["pictures"]] == ["failed", "painted", "painted", "failed"]
    assert report["pictures"][0]["attempts"] == 2
    assert "0.png" in report["pictures"][0]["reason"]
    assert "missing.png" in report["pictures"][3]["reason"]
    assert "2 pictures painted, 2 failed" in done.output
    assert not list(Path("out").glob("0_*"))
    assert nstgpu("batch", "pictures/0.png", "--style", "style.png", *QUICK, "-o", "none").exit_code == 1
    assert "missing.png" in refused("batch", "missing.png", "--style", "style.png", *QUICK, "-o", "out")


def test_a_full_disk_costs_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    real = images.save

    def full(path: Path, *arguments: Any, **named: Any) -> None:
        if Path(path).name.startswith("a_"):
            raise images.ImageError(f"cannot write {path}: No space left on device; choose another place")
        real(path, *arguments, **named)

    monkeypatch.setattr(images, "save", full)
    report = batch("pictures", "--style", "style.png", code=3)
    assert states(report) == [("a_style_32.png", "failed"), ("b_style_32.png", "painted")]
    assert "No space left" in report["pictures"][0]["reason"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pictures", "more"], "pictures/a.png and more/a.png would both be out/a_style_32.png; add to --name"),
        (["pictures", "--name", "{style}.png"], "pictures/a.png and pictures/b.png would both be"),
        (["pictures", "--name", "{content.stem}.png"], "there is no {content.stem}; choose among {content}"),
        (["pictures", "--name", "{content!r}.png"], "there is no {content}"),
        (["pictures", "--name", "{size:>99999999999}.png"], "pad numbers as {size:04}"),
        (["pictures", "--name", "../{content}.png"], "must stay within --output"),
        (["pictures", "--name", "/{content}.png"], "must stay within --output"),
        (["pictures", "--name", "{content}.xyz"], "its name must end in one of"),
        (["pictures", "--name", "{content"], "write a name with"),
        (["empty"], "empty has no pictures"),
        (["*.gif"], "*.gif has no pictures"),
        ([], "no content was given"),
        (["pictures", "--optimizer", "best"], "unknown optimizer"),
        (["pictures", "--quick", "--best"], "choose one of them"),
        (["pictures/a.png", "-o", "pictures", "--name", "a.png"], "pictures/a.png is an input and would be"),
        (["pictures", "--manifest", "rows.csv"], "choose one of them"),
    ],
)  # fmt: skip
def test_bad_input_is_told_before_anything_is_painted(many: Path, arguments: list[str], said: str) -> None:
    (many / "more").mkdir()
    (many / "empty").mkdir()
    shutil.copy("pictures/a.png", "more")
    output = [] if "-o" in arguments else ["-o", "out"]
    assert said in refused("batch", *arguments, "--style", "style.png", *QUICK, *output)
    assert not Path("out").exists()


def test_names_by_template() -> None:
    report = batch("pictures", "--style", "style.png", "--name", "{style}/{number:03}_{folder}_{content}.jpg")
    assert [picture["output"] for picture in report["pictures"]] == [
        "out/style/001_pictures_a.jpg", "out/style/002_pictures_b.jpg"
    ]  # fmt: skip
    assert Path("out/style/002_pictures_b.jpg").is_file()


def test_a_folder_is_not_painted_from_what_a_batch_has_written_there() -> None:
    for _ in range(2):
        done = nstgpu("batch", "pictures", "--style", "style.png", *QUICK, "-o", "pictures/out")
        assert done.exit_code == 0, done.output
        assert len(json.loads(Path("pictures/out/report.json").read_text())["pictures"]) == 2
    assert "pictures/out has no pictures" in refused(
        "batch", "pictures/out", "--style", "style.png", *QUICK, "-o", "pictures/out"
    )


def test_somebody_elses_report_is_left_alone() -> None:
    Path("out").mkdir()
    Path("out/report.html").write_text("mine")
    assert "report.html is there" in refused("batch", "pictures", "--style", "style.png", *QUICK, "-o", "out")
    assert nstgpu("batch", "pictures", "--style", "style.png", *QUICK, "-o", "out", "--no-report").exit_code == 0
    assert Path("out/report.html").read_text() == "mine"


# ---- manifests --------------------------------------------------------------------------------------------------


def test_a_row_is_a_run() -> None:
    Path("pictures/rows.csv").write_text(
        "content,style,seed,init,style-layer\n"
        "a.png,../style.png,3,noise,relu1_1=2;relu1_2\n"
        "\n"
        '"b.png",../style.png=2;../content.jpg,,,\n'
    )
    report = batch("--manifest", "pictures/rows.csv", "--name", "{number}.png")
    assert [picture["styles"] for picture in report["pictures"]] == [
        ["pictures/../style.png"], ["pictures/../style.png=2.0", "pictures/../content.jpg"]
    ]  # fmt: skip
    given = ["--seed", "3", "--init", "noise", "--style-layer", "relu1_1=2", "--style-layer", "relu1_2"]
    assert nstgpu("run", "pictures/a.png", "style.png", *QUICK, *given, "-o", "one.png").exit_code == 0
    assert Path("one.png").read_bytes() == Path("out/1.png").read_bytes()
    Path("rows.toml").write_text(
        '[[run]]\ncontent = "pictures/a.png"\nseed = 3\ninit = "noise"\nstyle_layers = ["relu1_1=2", "relu1_2"]\n'
    )
    report = batch("--manifest", "rows.toml", "--style", "style.png", "--name", "{number}.png")
    assert [picture["state"] for picture in report["pictures"]] == ["skipped"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("content,output\na.png,x.png\n", "row 1 of rows.csv has 'output', which a manifest may not say"),
        ("content,animation\na.png,x.gif\n", "'animation', which a manifest may not say"),
        ("content,json\na.png,x\n", "'json', which a manifest may not say"),
        ("content,name\na.png,x\n", "'name', which a manifest may not say"),
        ("content,colour\na.png,red\n", "'colour', which is no option of a run"),
        ("content,size\npictures/a.png,big\n", "row 1 of rows.csv has size = 'big', which is no number"),
        ("content,size\npictures/a.png,999999999\n", "has size = 999999999, which that option cannot be"),
        ("content,style\n/etc/hostname.png,style.png\n", "names /etc/hostname.png, outside of its own"),
        ("content,style\n../../../x.png,style.png\n", "outside of its own and the current folder; add --yes"),
        ("content,size,size\na.png,1,2\n", "has the column 'size' twice"),
        ("content\na.png,1,2\n", "row 1 of rows.csv has 3 cells, and 1 columns"),
        ("style\nstyle.png\n", "row 1 of rows.csv names no content"),
        ("content\npictures/a.png\n", "names no style"),
        ('content\n"a.png\n', "correct the manifest there"),
        ("content\n", "has no rows"),
        ("", "has no rows"),
        ("content\na\0b.png\n", "correct"),
    ],
)
def test_a_manifest_is_refused(text: str, said: str) -> None:
    Path("rows.csv").write_text(text)
    assert said in refused("batch", "--manifest", "rows.csv", *QUICK[:2], "-o", "out")
    assert not Path("out").exists()


def test_a_content_called_like_a_folder_above_names_nothing_outside() -> None:
    os.rename("pictures/a.png", "pictures/...png")
    said = refused("batch", "pictures/...png", "--style", "style.png", *QUICK, "-o", "out", "--name", "{content}/x.png")
    assert "can be no name of a picture" in said


# ---- the end, and how far it is ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 3), (signal.SIGTERM, 143)])
def test_asked_to_stop_it_ends_whole_and_goes_on_later(number: signal.Signals, code: int) -> None:
    given = ["batch", "pictures", "content.jpg", "--style", "style.png", *QUICK, "-o", "out"]
    slow = [*given, "--iterations", "120"]
    process = subprocess.Popen([*PROGRAM, *slow], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until = time.monotonic() + 60
    while not Path("out/a_style_32.png").exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert "Traceback" not in output
    report = json.loads(Path("out/report.json").read_text())
    assert report["painted"] >= 1
    assert report["left"] >= 1
    assert not list(Path("out").glob(".*"))
    done = nstgpu(*slow)
    assert done.exit_code == 0, done.output
    assert json.loads(Path("out/report.json").read_text())["skipped"] == report["painted"]


def test_time_left_is_told_by_work_and_not_by_pictures() -> None:
    tasks = [
        Task(n, Options(content="a", styles=("b",), iterations="10", scales=1), size) for n, size in enumerate((10, 30))
    ]
    clock = iter((0.0, 100.0))
    watch = Watch(tasks, now=lambda: next(clock))
    assert watch.left == ""
    watch.ended(Outcome(tasks[0], "painted"))
    assert watch.share == pytest.approx(0.1)
    assert watch.left == "15:00 left"
    assert watch.count == "1/2"
