"""The command line as a user meets it: pictures, progress, one-line errors and exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.commands import PROGRAM, nstgpu
from nstgpu import __version__
from nstgpu.engine.imaging import files as images

SHORT = ["--weights", "small.h5", "--iterations", "4"]


def test_run_writes_a_picture_with_its_recipe(folder: Path) -> None:
    result = nstgpu("run", "content.jpg", "style.png", *SHORT)
    assert result.exit_code == 0, result.output
    picture = images.read(folder / "content_style.png")
    assert picture.pixels.shape == (30, 40, 3)
    recipe = images.read_recipe(folder / "content_style.png")
    assert recipe["weights"] == "small.h5"
    assert recipe["iterations"] == "4"
    assert re.search(r"total [\d.]+", recipe["costs"])
    assert "wrote content_style.png (4 iterations" in result.stderr
    assert "painting 40x30 with small.h5 on cpu" in result.stderr
    assert "note: the weights small.h5 end at relu2_1" in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == [
        "content.jpg",
        "content_style.png",
        "small.h5",
        "style.png",
    ]


def test_every_option_reaches_the_run(folder: Path) -> None:
    result = nstgpu(
        "run", "content.jpg", "style.png", *SHORT, "-o", "out.webp", "--size", "24", "--device", "reference",
        "--precision", "fp32", "--content-weight", "2.5", "--style-weight", "1e3", "--tv-weight", "0.5",
        "--content-layer", "relu1_2", "--style-lambda", "block1_conv1=0.5", "--style-lambda", "relu2_1=1",
        "--content-reduction", "sum", "--optimizer", "descent", "--learning-rate", "1e-9", "--init", "noise",
        "--seed", "7", "--pooling", "average", "--style-scale", "0.75",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    recipe = images.read_recipe(folder / "out.webp")
    expected = {
        "device": "reference", "precision": "fp32", "size": "24x18", "content weight": "2.5 (sum)",
        "style weight": "1000", "tv weight": "0.5", "style layers": "relu1_1=0.5, relu2_1=1", "init": "noise",
        "optimizer": "descent, learning rate 1e-09", "seed": "7", "pooling": "average",
    }  # fmt: skip
    assert {name: recipe[name] for name in expected} == expected
    assert recipe["content layers"].startswith("relu1_2=")


def test_json_lines_and_intermediate_pictures(folder: Path) -> None:
    result = nstgpu("run", "content.jpg", "style.png", *SHORT, "--json", "log.jsonl", "--save-every", "2", "--quiet")
    assert result.exit_code == 0
    assert result.output == ""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["costs"]["total"] < lines[0]["costs"]["total"]
    assert (lines[0]["scale"], lines[0]["size"]) == (1, [40, 30])
    assert set(lines[0]["costs"]["per_layer"]) == {"relu1_1", "relu2_1", "relu2_1 content"}
    assert lines[0]["seconds"] > 0
    final, fourth = (images.read(folder / f"content_style{part}.png").pixels for part in ("", "_0004"))
    assert (folder / "content_style_0002.png").exists()
    np.testing.assert_array_equal(final, fourth)


def test_pictures_on_the_way_are_as_opaque_as_the_content(folder: Path) -> None:
    image = Image.open(folder / "content.jpg").convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(folder / "glass.png")
    assert nstgpu("run", "glass.png", "style.png", *SHORT, "--save-every", "2", "--quiet").exit_code == 0
    final, second = (np.asarray(Image.open(folder / f"glass_style{part}.png")) for part in ("", "_0002"))
    assert second.shape[2] == 4
    np.testing.assert_array_equal(second[..., 3], final[..., 3])


def test_same_seed_same_bytes(folder: Path) -> None:
    for name in ("a.png", "b.png"):
        assert nstgpu("run", "content.jpg", "style.png", *SHORT, "--init", "noise", "-o", name).exit_code == 0
    assert (folder / "a.png").read_bytes() == (folder / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jpg", "style.png"], "missing.jpg"),
        (["content.jpg", "small.h5"], "small.h5"),
        (["content.jpg", "style.png", "-o", "out.bmp"], "out.bmp"),
        (["content.jpg", "style.png", "-o", "style.png"], "style.png is an input"),
        (["content.jpg", "style.png", "--json", "content.jpg"], "content.jpg is an input"),
        (["content.jpg", "style.png", "--weights", "style.png"], "style.png"),
        (["content.jpg", "style.png", "--weights", "random:x"], "random:x"),
        (["content.jpg", "style.png", "--device", "tpu"], "unknown device 'tpu'"),
        (["content.jpg", "style.png", "--precision", "fp8"], "fp8"),
        (["content.jpg", "style.png", "--style-layer", "relu5_1"], "relu1_1, relu1_2, relu2_1"),
        (["content.jpg", "style.png", "--style-layer", "relu1_1=much"], "'much' is not a number"),
        (["content.jpg", "style.png", "--style-layer", "relu1_1=1", "--style-layer", "relu1_1=2"], "given twice"),
        (["content.jpg", "style.png", "--style-layer", "relu1_1=-1"], "zero or more"),
        (["content.jpg", "style.png", "--style-layer", "conv1_1"], "write 'relu1_1'"),
        (["content.jpg", "style.png", "--content-layer", "pool4"], "take the ReLU before it"),
        (
            ["content.jpg", "style.png", "--style-layer", "relu1_1,relu2_1=2"],
            "repeat the option: --style-layer relu1_1 --style-layer relu2_1=2",
        ),
        (["content.jpg", "style.png", "--style-lambda", "relu1_1"], "NAME=NUMBER"),
        (["content.jpg", "style.png", "--style-scale", "1", "--style-size", "64"], "choose one of them"),
        (["content.jpg", "style.png", "--settled-fall", "1"], "above 0 and below 1"),
        (["content.jpg", "style.png", "--style-lambda", "relu1_1=1", "--style-layer", "relu2_1"], "choose one of them"),
        (["content.jpg", "style.png", "--optimizer", "sgd"], "adam, lbfgs, descent"),
        (["content.jpg", "style.png", "--learning-rate", "-1"], "learning rate"),
        (["content.jpg", "style.png", "--pooling", "l2"], "max or average"),
        (["content.jpg", "style.png", "--init", "elsewhere.png"], "elsewhere.png"),
        (["content.jpg", "style.png", "--init", "banana"], "content, style, gray or noise, nor a picture"),
        (["content.jpg", "style.png", "--animation", "way.MP4"], "nstgpu video"),
        (["content.jpg", "style.png", "--content-weight", "0", "--style-weight", "0"], "weigh nothing"),
        ([], "no content was given"),
        (["content.jpg"], "no style was given"),
        (["content.jpg", "--style", "style.png=-1"], "weight of the style"),
        (
            ["content.jpg", "style.png", "--style-mask", "style.png", "--style-mask", "style.png"],
            "2 times for 1 style;",
        ),
        (
            ["content.jpg", "style.png", "--style", "style.png", "--style-mask", "style.png"],
            "--style-mask is given 1 time for 2 styles; give it once for each, in their order, with none for",
        ),
        (["content.jpg", "style.png", "--style-mask", "style.png", "--mask-feather", "999"], "--mask-feather is 999"),
        (["content.jpg", "style.png", "--content-mask", "missing.png"], "missing.png"),
        (["content.jpg", "style.png", "--colors", "sepia"], "content-luminance"),
        (["content.jpg", "style.png", "--style-statistics", "mean"], "choose gram, moments"),
        (["content.jpg", "style.png", "--iterations", "4,many"], "4,many"),
        (["content.jpg", "style.png", "--iterations", "4,3"], "given for 2 scales"),
        (["content.jpg", "style.png", "--average", "1"], "below 1"),
        (["content.jpg", "style.png", "--tile", "some"], "some"),
        (["content.jpg", "style.png", "-o", "out.jpg", "--depth", "16"], "out.jpg"),
        (["content.jpg", "style.png", "--animation", "way.mp4"], "way.mp4"),
        (["content.jpg", "style.png", "--report", "report.txt"], "report.txt"),
        (["content.jpg", "style.png", "--checkpoint", "style.png/state.h5"], "style.png is no folder"),
        (["--recipe", "content.jpg"], "no recipe in content.jpg"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folder: Path, arguments: list[str], message: str) -> None:
    before = sorted(folder.iterdir())
    weights = [] if "--weights" in arguments else ["--weights", "small.h5"]
    result = nstgpu("run", *arguments, *([] if "--iterations" in arguments else ["--iterations", "4"]), *weights)
    assert result.exit_code == 2, result.output
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("nstgpu: "))
    assert message in line
    assert "Traceback" not in result.output
    assert sorted(folder.iterdir()) == before


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--colors", "sepia"],
        ["--content-reduction", "max"],
        ["--style-statistics", "mean"],
        ["--pooling", "l2"],
        ["--optimizer", "sgd"],
        ["--learning-rate", "nan"],
        ["--average", "1"],
        ["--tile", "some"],
        ["--iterations", "0"],
        ["--iterations", "5,x"],
        ["--device", "tpu"],
        ["--precision", "fp8"],
        ["--style-weight", "-1"],
        ["--style-layer", "conv1_1"],
        ["--content-layer", "relu4_2=inf"],
        ["--style-scale", "0"],
        ["--init", "banana"],
        ["--style", "nowhere.png"],
        ["--style-mask", "nowhere.png"],
        ["--style-region", "nowhere.png"],
        ["--content-mask", "nowhere.png"],
        ["-o", "out.xyz"],
        ["--animation", "out.mp4"],
    ],
)
def test_options_are_checked_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    def too_early(*_: object, **__: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("nstgpu.weights.load_weights", too_early)
    monkeypatch.setattr("nstgpu.engine.imaging.files.read", too_early)
    result = nstgpu("run", "content.jpg", "style.png", *arguments)
    assert result.exit_code == 2, result.exception
    (line,) = result.stderr.splitlines()
    assert line.startswith("nstgpu: ")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--style-weight", "1e30"], "--style-weight is 1e+30"),
        (["--content-weight", "1e30"], "--content-weight is 1e+30"),
        (["--tv-weight", "1e35"], "--tv-weight is 1e+35"),
        (["--style-lambda", "relu1_1=1e30", "--style-weight", "300"], "the weight of style layer relu1_1 is 1e+30"),
    ],
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_weight_that_overflows_is_named(arguments: list[str], names: str) -> None:
    result = nstgpu("run", "content.jpg", "style.png", *SHORT, *arguments)
    assert result.exit_code == 1, result.exception
    assert result.stderr.count("RuntimeWarning") == 0
    assert names in result.stderr.splitlines()[-1]


@pytest.mark.usefixtures("folder")
def test_a_cost_that_rose_is_said() -> None:
    rose = nstgpu("run", "content.jpg", "style.png", *SHORT, "--learning-rate", "10")
    assert rose.exit_code == 0
    note = rose.stderr.splitlines()[-1]
    assert re.fullmatch(r"note: the cost rose from \S+ to \S+: the learning rate 10 is too large; .* it is 0.02", note)
    assert "rose" not in nstgpu("run", "content.jpg", "style.png", *SHORT).stderr


@pytest.mark.parametrize("arguments", [["--size", "big"], ["--size", "4"], ["--quality", "0"], ["--nonsense"]])
def test_usage_errors_are_exit_code_2(folder: Path, arguments: list[str]) -> None:
    result = nstgpu("run", "content.jpg", "style.png", *arguments)
    assert result.exit_code == 2
    assert not (folder / "content_style.png").exists()


@pytest.mark.usefixtures("folder")
def test_a_failure_is_exit_code_1_and_debug_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*_: object, **__: object) -> None:
        from nstgpu.engine.errors import NonFiniteCostError

        raise NonFiniteCostError("the cost is not finite at iteration 7: the step is too large")

    monkeypatch.setattr("nstgpu.engine.optimizers.loop.OptimizationLoop.iterate", diverge)
    result = nstgpu("run", "content.jpg", "style.png", *SHORT)
    assert result.exit_code == 1
    assert "nstgpu: the cost is not finite at iteration 7" in result.stderr
    monkeypatch.setattr(sys, "argv", ["nstgpu", "run", "--debug"])
    result = nstgpu("run", "content.jpg", "style.png", *SHORT, "--debug")
    assert type(result.exception).__name__ == "NonFiniteCostError"


def test_two_styles_with_masks_and_weights(folder: Path) -> None:
    left = np.zeros((30, 40, 3))
    left[:, :20] = 1
    images.save(folder / "left.png", left)
    images.save(folder / "right.png", 1 - left)
    images.save(folder / "other.png", np.random.default_rng(1).random((20, 20, 3)))
    result = nstgpu(
        "run", "content.jpg", *SHORT, "--style", "style.png", "--style", "other.png=0.5", "--style-mask", "left.png",
        "--style-mask", "right.png", "--style-scale", "1", "--style-scale", "0.7", "--style-statistics", "moments",
        "--colors", "match",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    recipe = images.read_recipe(folder / "content_style_other.png")
    assert recipe["style"] == "style, other"
    assert (recipe["style statistics"], recipe["colors"]) == ("moments", "match")


def test_a_run_is_repeated_from_its_picture(folder: Path) -> None:
    first = nstgpu(
        "run", "content.jpg", "--style", "style.png=0.5", *SHORT, "--seed", "3", "--init", "noise", "--average", "0.5"
    )
    assert first.exit_code == 0, first.output
    again = nstgpu("run", "--recipe", "content_style.png", "-o", "again.png")
    assert again.exit_code == 0, again.output
    assert (folder / "again.png").read_bytes() == (folder / "content_style.png").read_bytes()
    (folder / "recipe.toml").write_text(images.read_recipe(folder / "again.png")["nstgpu recipe"])
    other = nstgpu("run", "--recipe", "recipe.toml", "-o", "other.png", "--seed", "4")
    assert other.exit_code == 0, other.output
    assert images.read_recipe(folder / "other.png")["seed"] == "4"
    assert (folder / "other.png").read_bytes() != (folder / "again.png").read_bytes()
    (folder / "recipe.toml").write_text("content = 'content.jpg'\ncolour = 'red'\n")
    refused = nstgpu("run", "--recipe", "recipe.toml", "-o", "none.png")
    assert refused.exit_code == 2
    assert "'colour'" in refused.stderr
    for wrong in ("size = 'big'", "seed = 1.5", "styles = 'style.png'", "border = true", "style_scales = ['1']"):
        (folder / "recipe.toml").write_text(f"content = 'content.jpg'\n{wrong}\n")
        refused = nstgpu("run", "--recipe", "recipe.toml", "-o", "none.png")
        assert refused.exit_code == 2, wrong
        assert f"recipe.toml has {wrong.partition(' ')[0]} = " in refused.stderr
    assert not (folder / "none.png").exists()


def test_layer_weights_are_relative_on_the_command_line(folder: Path) -> None:
    """A recipe of either kind repeats, and one kind replaces the other."""

    def layers(name: str, *options: str) -> str:
        result = nstgpu("run", *options, "-o", name)
        assert result.exit_code == 0, result.output
        return images.read_recipe(folder / name)["style layers"]

    new = ["content.jpg", "style.png", *SHORT]
    plain = layers("plain.png", *new, "--style-layer", "relu1_1", "--style-layer", "relu2_1")
    even = layers("even.png", *new, "--style-layer", "relu1_1=1", "--style-layer", "relu2_1=1")
    assert even == plain
    assert images.read(folder / "even.png").pixels.tobytes() == images.read(folder / "plain.png").pixels.tobytes()
    uneven = layers("uneven.png", *new, "--style-layer", "relu1_1=3", "--style-layer", "relu2_1")
    (first, last), (more, same) = ([float(pair.split("=")[1]) for pair in text.split(", ")] for text in (plain, uneven))
    assert more == pytest.approx(3 * first, rel=1e-5)
    assert same == last
    exact = layers("exact.png", *new, "--style-lambda", "relu1_1=3", "--style-lambda", "relu2_1=0.1")
    assert exact == "relu1_1=3, relu2_1=0.1"
    for name in ("uneven.png", "exact.png"):
        layers("again.png", "--recipe", name)
        assert (folder / "again.png").read_bytes() == (folder / name).read_bytes()
        (folder / "again.png").unlink()
    assert layers("other.png", "--recipe", "exact.png", "--style-layer", "relu1_1").startswith("relu1_1=")


def test_a_dry_run_tells_and_writes_nothing(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    options = ["content.jpg", "style.png", *SHORT, "--style-size", "30", "--noise", "0.25", "--stop-when-settled"]
    options += ["--min-size", "20", "--style-layer", "relu1_1=2", "--style-layer", "relu2_1", "--animation", "way.webp"]
    told = nstgpu("run", *options, "--dry-run")
    assert told.exit_code == 0, told.output
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in told.stdout.splitlines())
    assert facts["content"] == "content.jpg, 40x30 px"
    assert facts["style"] == "style.png, looked at in 30x21 px"
    assert facts["scales"] == "20 px x 4, 28 px x 4, 40 px x 4"
    assert facts["iterations"] == "12 over 3 scales"
    assert facts["would write"] == "content_style.png, way.webp"
    # The very numbers of the run itself.
    assert nstgpu("run", *options).exit_code == 0
    recipe = images.read_recipe(folder / "content_style.png")
    measured = ["weights", "device", "precision", "size", "content layers", "style layers", "content weight"]
    measured += ["style weight", "tv weight", "init", "settled", "style size"]
    assert {name: facts[name] for name in measured} == {name: recipe[name] for name in measured}
    again = nstgpu("run", "--recipe", "content_style.png", "-o", "again.png")
    assert again.exit_code == 0, again.output
    assert (folder / "again.png").read_bytes() == (folder / "content_style.png").read_bytes()


def test_presets_and_what_is_given_besides(folder: Path) -> None:
    images.save(folder / "large.png", np.random.default_rng(0).random((300, 400, 3)))

    def facts(*options: str) -> dict[str, str]:
        told = nstgpu("run", *options, "--weights", "small.h5", "--dry-run", "--threads", "1")
        assert told.exit_code == 0, told.output
        return dict(re.split(r"  +", line, maxsplit=1) for line in told.stdout.splitlines())

    quick = facts("large.png", "style.png", "--quick")
    assert (quick["size"], quick["scales"]) == ("256x192", "128 px x 40, 181 px x 40, 256 px x 40")
    best = facts("large.png", "style.png", "--best")
    assert best["size"] == "400x300"  # nothing is enlarged
    assert best["scales"].endswith("400 px x 300")
    mine = facts("large.png", "style.png", "--best", "--size", "64", "--iterations", "7")
    assert (mine["size"], mine["scales"]) == ("64x48", "64 px x 7")
    both = nstgpu("run", "large.png", "style.png", "--best", "--quick")
    assert both.exit_code == 2
    assert "choose one of them" in both.stderr
    assert nstgpu("run", "content.jpg", "style.png", *SHORT, "--quick").exit_code == 0
    assert 'iterations = "4"' in images.read_recipe(folder / "content_style.png")["nstgpu recipe"]
    assert facts("--recipe", "content_style.png", "--best")["scales"] == "40 px x 300"


def test_a_settled_run_says_so(folder: Path) -> None:
    result = nstgpu(
        "run", "content.jpg", "style.png", "--weights", "small.h5", "--iterations", "500", "--settled-fall", "0.5"
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"the cost has settled after \d+ iterations at 40 px", result.stderr)
    assert "stopped" not in result.stderr
    assert int(images.read_recipe(folder / "content_style.png")["iterations"]) < 500


def test_sixteen_bits_an_animation_and_scales(folder: Path) -> None:
    result = nstgpu(
        "run", "content.jpg", "style.png", *SHORT, "--min-size", "16", "--scales", "3", "-o", "out.tif", "--depth",
        "16", "--animation", "way.webp",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert images.read_recipe(folder / "out.tif")["scales"] == "20 px x 4, 28 px x 4, 40 px x 4"
    with Image.open(folder / "way.webp") as way:
        assert getattr(way, "n_frames", 1) > 4
        assert way.size == (40, 30)


def test_a_report_tells_the_run(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    result = nstgpu("run", "content.jpg", "style.png", *SHORT, "--report", "report.html")
    assert result.exit_code == 0, result.output
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "relu2_1" in page


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_run_is_resumed_to_the_same_bytes(folder: Path) -> None:
    """kill -9 at several moments, among them while a checkpoint is written."""
    options = ["--weights", "small.h5", "--iterations", "60", "--min-size", "20", "--init", "noise", "--threads", "1"]
    whole = nstgpu("run", "content.jpg", "style.png", *options, "-o", "whole.png")
    assert whole.exit_code == 0, whole.output
    command = [*PROGRAM]
    run = [*command, "run", "content.jpg", "style.png", *options, "-o", "out.png"]
    run += ["--checkpoint", "state.h5", "--checkpoint-every", "0"]
    resume = [*command, "resume", "state.h5"]
    for number, start in enumerate([run, resume, resume]):
        process = subprocess.Popen(start, cwd=folder, stderr=subprocess.DEVNULL)
        deadline, seen = time.monotonic() + 60, set[int]()
        while len(seen) < 6 and process.poll() is None:
            assert time.monotonic() < deadline
            if (folder / "state.h5").exists():
                seen.add((folder / "state.h5").stat().st_ino)
            time.sleep(0.001 * number)
        process.kill()
        process.wait()
    result = nstgpu("resume", "state.h5")
    assert result.exit_code == 0, result.output
    assert (folder / "out.png").read_bytes() == (folder / "whole.png").read_bytes()
    left_behind = [path.name for path in folder.iterdir() if path.suffix == ".part"]
    assert len(left_behind) <= 3  # what a kill -9 cut off keeps its passing name


def test_a_checkpoint_of_other_pictures_is_refused(folder: Path) -> None:
    start = ["run", "content.jpg", "style.png", *SHORT, "--checkpoint", "state.h5"]
    assert nstgpu(*start).exit_code == 0
    images.save(folder / "content.jpg", np.zeros((30, 40, 3)))
    result = nstgpu("resume", "state.h5")
    assert result.exit_code == 2
    assert "content.jpg is not the content of the checkpoint state.h5" in result.stderr


def test_version() -> None:
    for arguments in (["--version"], ["run", "--version"]):
        result = nstgpu(*arguments)
        assert result.exit_code == 0
        assert result.stdout == f"nstgpu {__version__}\n"


@pytest.mark.usefixtures("folder")
def test_the_bundled_model_is_the_default_and_says_so() -> None:
    result = nstgpu("run", "content.jpg", "style.png", "--iterations", "1", "--size", "32")
    assert result.exit_code == 0, result.output
    notes = [line for line in result.stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert "mini is a small stand-in for VGG-19" in notes[0]
    assert images.read_recipe("content_style.png")["weights"] == "mini"


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_in_a_real_process_still_writes_the_picture(folder: Path) -> None:
    command = [*PROGRAM, "run", "content.jpg", "style.png"]
    command += ["--weights", "small.h5", "--iterations", "100000", "--json", "log.jsonl"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not ((folder / "log.jsonl").exists() and (folder / "log.jsonl").read_text().count("\n") >= 3):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert re.search(r"stopped after \d+ of 100000 iterations", " ".join(stderr.split()))
    assert images.read(folder / "content_style.png").pixels.shape == (30, 40, 3)


def test_the_installed_command_runs(folder: Path) -> None:
    command = Path(sys.executable).with_name("nstgpu")
    result = subprocess.run(
        [str(command), "run", "content.jpg", "style.png", *SHORT],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert (folder / "content_style.png").exists()
    wrong = subprocess.run(
        [str(command), "run", "a.jpg", "b.jpg"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
