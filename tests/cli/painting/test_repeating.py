"""Recipes and checkpoints: the same bytes again, wherever weights and pictures lie now, and what they may not do."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from harness.commands import fill, nstgpu
from nstgpu.cli import app
from nstgpu.cli.painting import repeating
from nstgpu.engine.imaging import files as images
from nstgpu.engine.optimizers import checkpoint
from nstgpu.engine.reporting import recipe
from nstgpu.kernels.cpu.thread_pool import default_count
from nstgpu.kernels.open import open_devices
from nstgpu.runs.settings import Options, Settings
from nstgpu.weights import load_weights
from nstgpu.weights.official import store
from nstgpu.weights.writer import write_canonical

SHORT = ["--weights", "small.h5", "--iterations", "3"]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, small_weights: Path) -> Path:
    """A folder after a run with a checkpoint."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        fill(folder, small_weights)
        patch.chdir(folder)
        done("run", "content.jpg", "style.png", *SHORT, "-o", "out.png", "--checkpoint", "state.h5")
    return folder


@pytest.fixture
def painted(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it; the checkpoint's paths are the template's."""
    folder = Path(shutil.copytree(template, tmp_path / "painted"))
    monkeypatch.chdir(folder)
    return folder


def done(*arguments: str) -> Result:
    """Of a command that ends well; what -o names is made anew."""
    if "-o" in arguments:
        Path(arguments[arguments.index("-o") + 1]).unlink(missing_ok=True)
    result = nstgpu(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments: str) -> str:
    result = nstgpu(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("nstgpu: "))
    return line


def text_in(picture: Path | str) -> dict[str, Any]:
    return recipe.load(Path(picture))


def rewritten(picture: str, **changed: Any) -> str:
    """A picture with a recipe like that of `picture`, but for what is changed."""
    values = {name: value for name, value in {**text_in(picture), **changed}.items() if value is not None}
    images.save("hostile.png", np.zeros((8, 8, 3)), recipe={recipe.KEY: recipe.dump(values)})
    return "hostile.png"


# ---- what a recipe says ---------------------------------------------------------------------------------------------


def test_a_recipe_names_weights_by_checksum_and_the_defaults_taken(folder: Path) -> None:
    done("run", "content.jpg", "style.png", *SHORT, "-o", "out.png")
    told = text_in("out.png")
    assert told["weights"] == "small.h5"
    assert told["threads"] == default_count()
    assert told["weights_sha256"] == load_weights(folder / "small.h5").checksum
    assert told["content_sha256"] == hashlib.sha256((folder / "content.jpg").read_bytes()).hexdigest()
    expected = {"size": 40, "device": "cpu", "precision": "fp32", "min_size": 128, "optimizer": "adam", "seed": 0,
                "init": "content", "preprocessing": "caffe", "pooling": "max", "tile": "off", "iterations": "3",
                "colors": "style", "statistics": "gram", "content_reduction": "mean", "border": 0}  # fmt: skip
    assert {name: told.get(name) for name in expected} == expected


def test_paths_are_private_unless_they_are_asked_for(folder: Path) -> None:
    (folder / "pictures").mkdir()
    shutil.move(folder / "style.png", folder / "pictures")
    style = str(folder / "pictures" / "style.png")
    start = ["run", str(folder / "content.jpg"), style, "--weights", str(folder / "small.h5"), "--iterations", "1"]
    done(*start, "--init", style, "-o", "names.png")
    done(*start, "-o", "pictures/paths.png", "--relative-paths")
    done(*start, "-o", "none.png", "--no-recipe")
    told = images.read_recipe("names.png")
    assert str(folder) not in str(told)
    assert (text_in("names.png")["content"], text_in("names.png")["styles"]) == ("content.jpg", ["style.png"])
    assert (text_in("names.png")["weights"], text_in("names.png")["init"]) == ("small.h5", "style.png")
    assert (text_in("pictures/paths.png")["content"], text_in("pictures/paths.png")["styles"]) == (
        "../content.jpg", ["style.png"]
    )  # fmt: skip
    assert images.read_recipe("none.png") == {}
    done("run", "--recipe", "pictures/paths.png", "-o", "again.png", "--relative-paths")
    assert images.read("again.png").pixels.tobytes() == images.read("pictures/paths.png").pixels.tobytes()


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"\xff\xfe=2.jpg"])
def test_a_name_that_is_no_unicode(folder: Path, name: bytes) -> None:
    os.rename(folder / "content.jpg", os.fsencode(folder) + b"/" + name)
    result = done("run", os.fsdecode(name), "style.png", *SHORT, "--checkpoint", "state.h5")
    (written,) = (path for path in folder.iterdir() if path.suffix == ".png" and path.name != "style.png")
    assert text_in(written)["content"] == name.decode(errors="backslashreplace")
    assert name.decode(errors="backslashreplace")[:5] in result.stderr
    done("run", "--recipe", str(written), "-o", "again.png")
    assert (folder / "again.png").read_bytes() == written.read_bytes()
    done("resume", "state.h5", "-o", "resumed.png")
    assert (folder / "resumed.png").read_bytes() == written.read_bytes()


# ---- the same bytes again -------------------------------------------------------------------------------------------


def test_the_default_weights_have_changed_since(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `weights fetch vgg19`: the run was with mini, and mini it is again."""
    start = ["run", "content.jpg", "style.png", "--iterations", "2", "-o", "out.png"]
    done(*start, "--checkpoint", "state.h5")
    monkeypatch.setattr("nstgpu.weights.default_weights", lambda: "small.h5")
    done("run", "--recipe", "out.png", "-o", "again.png")
    done("resume", "state.h5", "-o", "resumed.png")
    assert (folder / "again.png").read_bytes() == (folder / "out.png").read_bytes()
    assert (folder / "resumed.png").read_bytes() == (folder / "out.png").read_bytes()


def test_weights_are_found_by_their_checksum(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another name in the weights folder, beside the recipe, by --weights; or a line says which are missing."""
    done("run", "content.jpg", "style.png", *SHORT, "-o", "out.png", "--checkpoint", "state.h5")
    before, weights = (folder / "out.png").read_bytes(), load_weights("small.h5")
    (folder / "moved").mkdir()
    shutil.move(folder / "small.h5", folder / "moved" / "other.h5")
    for command in (["run", "--recipe", "out.png"], ["resume", "state.h5"]):
        line = refused(*command, "-o", "again.png")
        assert "small.h5" in line
        assert weights.checksum[:16] in line
        assert "--weights FILE" in line
    for other, why in (("mini", "mini holds others"), ("gone.h5", "gone.h5: no such file")):
        line = refused("resume", "state.h5", "-o", "again.png", "--weights", other)
        assert why in line
        assert f"takes the run's own, which have the checksum {weights.checksum[:16]}" in line
    hostile = rewritten("out.png", weights="vgg19")
    line = refused("run", "--recipe", hostile, "-o", "again.png")
    assert "vgg19" in line
    assert line.rstrip().endswith("weights fetch vgg19, or give the file that has them with --weights FILE")
    for command in (["run", "--recipe", "out.png"], ["resume", "state.h5"]):
        done(*command, "-o", "again.png", "--weights", "moved/other.h5", *(["-q"] if command[0] == "run" else []))
        assert images.read("again.png").pixels.tobytes() == images.read("out.png").pixels.tobytes()
    monkeypatch.setattr(store, "BUNDLED_FILE", folder / "moved" / "other.h5")  # as if `mini` were these
    done("run", "--recipe", "out.png", "-o", "again.png")
    assert images.read("again.png").pixels.tobytes() == images.read("out.png").pixels.tobytes()
    write_canonical(folder / "small.h5", load_weights("mini").convolutions, weights.preprocessing)
    assert (folder / "out.png").read_bytes() == before


def test_as_many_threads_as_before(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are cut up among them; on a machine with more cores a picture is repeated with its own number."""
    done("run", "content.jpg", "style.png", *SHORT, "-o", "out.png", "--threads", "3", "--checkpoint", "state.h5")
    opened: list[int | None] = []

    def noted(name: str, precision: str, threads: int | None = None) -> Any:
        opened.append(threads)
        return open_devices(name, precision, threads)

    monkeypatch.setattr("nstgpu.engine.inputs.open_devices", noted)
    done("run", "--recipe", "out.png", "-o", "again.png")
    done("resume", "state.h5", "-o", "resumed.png")
    assert opened == [3, 3]
    done("run", "--recipe", "out.png", "-o", "other.png", "--device", "reference", "--precision", "fp32")
    assert opened[2:] == [None]
    for name in ("again.png", "resumed.png"):
        assert (folder / name).read_bytes() == (folder / "out.png").read_bytes()


def test_pictures_are_found_beside_the_recipe_and_here_by_checksum(folder: Path) -> None:
    done("run", "content.jpg", "style.png", *SHORT, "-o", "out.png")
    (folder / "elsewhere").mkdir()
    for name in ("out.png", "style.png", "small.h5"):
        shutil.move(folder / name, folder / "elsewhere")
    images.save(folder / "style.png", np.zeros((8, 8, 3)))  # another of that name
    done("run", "--recipe", "elsewhere/out.png", "-o", "again.png")
    assert (folder / "again.png").read_bytes() == (folder / "elsewhere" / "out.png").read_bytes()
    (folder / "elsewhere" / "style.png").unlink()
    line = refused("run", "--recipe", "elsewhere/out.png", "-o", "none.png")
    assert "style.png is not a style of the recipe" in line
    (folder / "style.png").unlink()
    line = refused("run", "--recipe", "elsewhere/out.png", "-o", "none.png")
    assert "style.png, is not in" in line
    assert "--style" in line
    images.save(folder / "new.png", np.zeros((8, 8, 3)))
    done("run", "--recipe", "elsewhere/out.png", "--style", "new.png", "-o", "other.png")


@pytest.mark.usefixtures("folder")
def test_a_recipe_of_the_version_before() -> None:
    """What was left alone it didn't say, and a layer's weight was the formula's own."""
    done("run", "content.jpg", "style.png", *SHORT, "--style-lambda", "relu1_1=0.5", "--style-lambda", "relu2_1=1",
         "-o", "now.png")  # fmt: skip
    old = 'content = "content.jpg"\nstyles = ["style.png"]\niterations = "3"\nthreads = 2\n'
    old += 'style_layers = ["relu1_1=0.5", "relu2_1"]\n'
    beside = {key: images.read_recipe("now.png")[key] for key in ("nstgpu", "weights", "weights sha256", "device")}
    images.save("old.png", np.zeros((8, 8, 3)), recipe={**beside, recipe.KEY: old})
    done("run", "--recipe", "old.png", "-o", "again.png")
    assert images.read("again.png").pixels.tobytes() == images.read("now.png").pixels.tobytes()


@pytest.mark.usefixtures("painted")
def test_a_recipe_of_another_device_says_how_it_is_painted_here() -> None:
    hostile = rewritten("out.png", device="cuda", precision="bf16", threads=None)
    if CliRunner().invoke(app, ["run", "--recipe", hostile, "-o", "gpu.png"]).exit_code == 0:
        pytest.skip("there is a GPU")
    assert "--device auto paints here" in refused("run", "--recipe", hostile, "-o", "none.png")
    done("run", "--recipe", hostile, "-o", "here.png", "--device", "auto")
    np.testing.assert_allclose(images.read("here.png").pixels, images.read("out.png").pixels, atol=2 / 255)


def test_more_iterations_and_the_recipe_of_that(folder: Path) -> None:
    done("run", "content.jpg", "style.png", *SHORT, "--min-size", "16", "-o", "out.png", "--checkpoint", "state.h5")
    result = done("resume", "state.h5", "-o", "more.png", "--iterations", "8")
    scales = len(images.read_recipe("out.png")["scales"].split(", "))
    assert f"{3 * scales + 5} iterations" in " ".join(result.stderr.split())
    assert (folder / "more.png").read_bytes() != (folder / "out.png").read_bytes()
    done("run", "--recipe", "more.png", "-o", "again.png")
    assert (folder / "again.png").read_bytes() == (folder / "more.png").read_bytes()
    assert "give more than that" in refused("resume", "state.h5", "--iterations", "2")
    assert "scales" in refused("resume", "state.h5", "--iterations", "2,3,4,5,6,7,8,9")
    assert "give a number" in refused("resume", "state.h5", "--iterations", "many")
    falling = done("resume", "state.h5", "-o", "falling.png", "--iterations", "3..10")
    assert f"{3 * (scales - 1) + 10} iterations" in " ".join(falling.stderr.split())  # the scales done stay as they are
    again = done("resume", "state.h5")  # goes where it went last
    assert "falling.png" in again.stderr


@pytest.mark.usefixtures("folder")
def test_iterations_left_alone_were_a_hundred_in_earlier_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {"content": "content.jpg", "styles": ["style.png"]}
    monkeypatch.setattr(recipe, "load", lambda _: dict(told))
    Path("recipe.toml").touch()

    def read() -> dict[str, Any]:
        return repeating.from_recipe(Path("recipe.toml"), {}, yes=True, quiet=True)

    assert "iterations" not in read()
    told[recipe.VERSION_KEY] = ""  # what a picture of an earlier version is read as
    assert read()["iterations"] == "100"
    told["iterations"] = "7"
    assert read()["iterations"] == "7"


def test_what_is_set_of_statistics_is_repeated_and_goes_with_them(folder: Path) -> None:
    given = ["--size", "32", "--scales", "1", *SHORT, "--threads", "1", "--device", "cpu"]
    tuned = ["--style-statistics", "neighbors+sliced", "--match-every", "2", "--style-turns", "4", "--directions", "9"]
    done("run", "content.jpg", "style.png", *given, *tuned, "-o", "out.png", "--checkpoint", "state.h5")
    told = images.read_recipe("out.png")
    assert (told["match every"], told["turns"], told["directions"]) == ("2", "4", "9")
    done("run", "--recipe", "out.png", "-o", "again.png")
    assert (folder / "again.png").read_bytes() == (folder / "out.png").read_bytes()
    done("resume", "state.h5", "-o", "resumed.png")
    assert images.read("resumed.png").pixels.tobytes() == images.read("out.png").pixels.tobytes()
    done("run", "--recipe", "out.png", "-o", "gram.png", "--style-statistics", "gram")
    assert "turns" not in images.read_recipe("gram.png")
    plain = ["--style-statistics", "neighbors"]
    done("run", "content.jpg", "style.png", *given, *plain, "-o", "plain.png")
    kept = images.read_recipe("plain.png")[recipe.KEY]
    assert "match_every = 25" in kept
    assert "style_turns = 1" in kept
    assert "directions" not in kept
    for option, problem in (
        (["--style-turns", "4"], "--style-turns: turns is for the style statistics neighbors; add neighbors to gram"),
        (["--directions", "64"], "--directions: directions is for the style statistics sliced"),
        (["--style-turns", "3", *plain], "--style-turns: turns is 3; it must be 1, 2 or 4"),
        (["--match-every", "0", *plain], "--match-every is 0; it must be 1 to 1000000"),
    ):
        assert problem in refused("run", "content.jpg", "style.png", *given, *option, "-o", "no.png")
    hostile = rewritten("plain.png", style_turns=3)
    assert "--style-turns: turns is 3" in refused("run", "--recipe", hostile, "-o", "no.png")


def test_what_is_painted_by_default_falls_from_scale_to_scale(folder: Path) -> None:
    given = ["--size", "32", "--min-size", "16", "--weights", "small.h5", "--threads", "1", "--device", "cpu"]
    done("run", "content.jpg", "style.png", *given, "-o", "out.png")
    assert images.read_recipe("out.png")["scales"] == "16 px x 100, 23 px x 88, 32 px x 50"
    assert 'iterations = "100..50"' in images.read_recipe("out.png")[recipe.KEY]
    done("run", "--recipe", "out.png", "-o", "again.png")
    assert (folder / "again.png").read_bytes() == (folder / "out.png").read_bytes()
    done("run", "--recipe", "out.png", "-o", "larger.png", "--size", "46", "--iterations", "3..1")
    assert images.read_recipe("larger.png")["scales"] == "16 px x 3, 23 px x 3, 33 px x 2, 46 px x 1"


# ---- what files from others may not do ------------------------------------------------------------------------------


def test_only_the_settings_of_a_picture_are_a_recipes() -> None:
    """A new option that says where to write belongs to `Options` itself."""
    outputs = {"output", "save_every", "animation", "report", "json_file", "checkpoint", "checkpoint_seconds", "quiet"}
    assert not outputs & set(Settings.__dataclass_fields__)
    assert outputs < set(Options.__dataclass_fields__)


@pytest.mark.parametrize(
    ("suffix", "name", "value"),
    [
        *((suffix, "json_file", "victim") for suffix in ("jpg", "webp", "tif", "toml")),
        *(("png", name, value) for name, value in [
        ("output", "victim"), ("checkpoint", "victim"), ("json_file", "victim"), ("report", "victim.html"),
        ("animation", "victim.webp"), ("save_every", 1), ("quiet", True), ("yes", True), ("checkpoint_seconds", 0.0),
        ("recipe", "content.jpg"), ("no_recipe", True), ("debug", True), ("__class__", "x"),
        ("output_sha256", "00"), ("sha256", "00"),
        ]),
    ],
)  # fmt: skip
def test_a_recipe_never_says_where_to_write(folder: Path, suffix: str, name: str, value: Any) -> None:
    (folder / "victim").write_text("precious")
    values = {"nstgpu": "1", "content": "content.jpg", "styles": ["style.png"], "iterations": "1", name: value}
    if suffix == "toml":
        (folder / "r.toml").write_text(recipe.dump(values))
    else:
        images.save(f"r.{suffix}", np.zeros((8, 8, 3)), recipe={recipe.KEY: recipe.dump(values)})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert repr(name) in refused("run", "--recipe", f"r.{suffix}", "-o", "out.png")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_files_elsewhere_are_read_only_with_leave(painted: Path) -> None:
    folder = painted
    outside = folder.parent / "outside.png"
    shutil.copy(folder / "style.png", outside)
    for name in (str(outside), "../outside.png", "a/../../outside.png", "/dev/zero"):
        for changed in ({"styles": [name]}, {"init": name}, {"content_mask": name}, {"style_masks": [name]}):
            hostile = rewritten("out.png", **changed, styles_sha256=None)
            line = refused("run", "--recipe", hostile, "-o", "none.png")
            assert name in line
            assert "--yes" in line
    hostile = rewritten("out.png", weights="../secret.h5", weights_sha256=None)
    assert "../secret.h5" in refused("run", "--recipe", hostile, "-o", "none.png")
    hostile = rewritten("out.png", styles=["../outside.png"])
    assert "outside.png" in done("run", "--recipe", hostile, "-o", "yes.png", "--yes").stderr
    assert images.read("yes.png").pixels.tobytes() == images.read("out.png").pixels.tobytes()
    for name in ("-", "nowhere.png", "http://example.org/a.png"):
        refused("run", "--recipe", rewritten("out.png", content=name), "-o", "none.png")
    assert not (folder / "none.png").exists()


@pytest.mark.usefixtures("painted")
def test_what_is_read_is_said_first(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = images.read

    def noted(source: Any) -> Any:
        read.append(str(source))
        return real(source)

    def noted_sum(path: Path) -> str:
        read.append(str(path))
        return "0"

    monkeypatch.setattr("nstgpu.engine.imaging.files.read", noted)
    monkeypatch.setattr("nstgpu.cli.painting.inputs.checksum", noted_sum)
    monkeypatch.setattr("nstgpu.cli.painting.inputs.say", read.append)
    refused("run", "--recipe", "out.png", "-o", "again.png")
    assert read[0] == "the recipe in out.png names content.jpg, style.png, small.h5"
    assert len(read) > 1


@pytest.mark.parametrize(
    "changed",
    [
        {"size": 10**9}, {"size": 0}, {"size": -1}, {"scales": 10**6}, {"border": 10**9}, {"seed": -1},
        {"seed": 2**64 - 1}, {"iterations": "9" * 4000}, {"iterations": "1,-2"}, {"content_weight": True},
        {"quality": 101}, {"styles": ["a"] * 256}, {"content": "a\0b"}, {"content": "a" * 4096},
        {"device": "\x1b[31m"}, {"colors": "\u202e"}, {"weights": "random:" + "9" * 1000}, {"tile": "half"},
        {"optimizer": ""}, {"content": ""}, {"styles": [""]}, {"content_sha256": 5}, {"styles_sha256": [1]},
    ],
)  # fmt: skip
def test_numbers_and_lengths_are_bounded(painted: Path, changed: dict[str, Any]) -> None:
    line = refused("run", "--recipe", rewritten("out.png", **changed), "-o", "none.png")
    assert len(line) < 2100
    assert line.isprintable()
    assert not (painted / "none.png").exists()


def with_options(text: str, path: str = "hostile.h5") -> str:
    state, _ = checkpoint.read("state.h5")
    checkpoint.write(path, state, text)
    return path


def test_a_checkpoint_of_somebody_else_asks_before_it_writes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done("run", "content.jpg", "style.png", *SHORT, "-o", "out.png", "--checkpoint", "state.h5", "--json", "log")
    (folder / "log").write_text("precious")
    (folder / "out.png").write_bytes(b"precious")
    _, own = checkpoint.read("state.h5")
    assert "exists already" in refused("resume", "state.h5", "-o", "style.png")
    forged = json.loads(own)
    forged["run"] = forged["run"].replace("out.png", "content.jpg")
    for text in (json.dumps(forged), json.dumps({**json.loads(own), "seal": ""}), json.dumps(json.loads(own)["run"])):
        refused("resume", with_options(text))
    monkeypatch.setenv("XDG_DATA_HOME", str(folder.parent / "another user"))
    line = refused("resume", "state.h5")
    assert "out.png" in line
    assert "log" in line
    assert (folder / "log").read_text() == "precious"
    assert (folder / "out.png").read_bytes() == b"precious"
    result = done("resume", "state.h5", "-o", "mine.png")
    assert "log is not written" in result.stderr
    assert (folder / "log").read_text() == "precious"
    assert images.read("mine.png").pixels.shape == (30, 40, 3)
    shutil.copy(folder / "state.h5", folder / "now mine.h5")  # sealed by its new owner as it was gone on with
    done("resume", "now mine.h5")
    monkeypatch.setenv("XDG_DATA_HOME", str(folder.parent / "a third"))
    done("resume", "state.h5", "--yes")


@pytest.mark.parametrize(
    "text",
    [
        "", "[" * 10**5, "{}", "[]", "null", "1e400", '{"run": 5}', '{"run": "[[["}', '{"run": "{}", "seal": 1}',
        '{"content": NaN}', '{"size": 1e400}', '{"size": ' + "9" * 5000 + "}", '{"content": ["a"]}', '{"colour": 1}',
        '{"run": "{\\"options\\": {}, \\"sha256\\": {\\"a\\": 1}}"}', '{"content": "' + "a" * 5000 + '"}',
        '{"a": ' * 20000 + "1" + "}" * 20000, '{"\\u001b[31m": 1}', "\x1b",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("painted")
def test_options_of_a_hostile_checkpoint_end_in_a_line(text: str) -> None:
    line = refused("resume", with_options(text), "--yes")
    assert line.isprintable()


@pytest.mark.usefixtures("painted")
def test_an_earlier_versions_options_are_read_with_leave() -> None:
    earlier = {"content": "content.jpg", "styles": ["style.png"], "output": "old.png", "weights": "small.h5",
               "iterations": "3", "checkpoint": "state.h5", "style_masks": [], "size": None}  # fmt: skip
    assert "old.png" in refused("resume", with_options(json.dumps(earlier)))
    done("resume", with_options(json.dumps(earlier)), "--yes")
    assert images.read("old.png").pixels.tobytes() == images.read("out.png").pixels.tobytes()


def test_a_run_without_a_place_for_its_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "file"))
    assert json.loads(repeating.checkpoint_text(Options(content="a", output="b"), {}))["seal"] == ""
    done("run", "content.jpg", "style.png", *SHORT, "-o", "out.png", "--checkpoint", "state.h5")
    assert "--yes" in refused("resume", "state.h5")
    done("resume", "state.h5", "--yes")


# ---- changes on the way ---------------------------------------------------------------------------------------------


def test_changes_are_repeated_and_gone_on_with(folder: Path) -> None:
    changes = ["--change", "2 style_weight=700", "--change", "3 style_layers=relu1_1 tv_weight=0.5"]
    start = ["run", "content.jpg", "style.png", "--weights", "small.h5", "--iterations", "5", "-o", "out.png"]
    told = done(*start, *changes, "--checkpoint", "state.h5", "--report", "report.html")
    assert "changed after 2 style_weight=700.0" in told.stderr
    assert text_in("out.png")["changes"] == ["2 style_weight=700", "3 style_layers=relu1_1 tv_weight=0.5"]
    done("run", "--recipe", "out.png", "-o", "again.png")
    done("resume", "state.h5", "-o", "resumed.png")
    for name in ("again.png", "resumed.png"):
        assert (folder / name).read_bytes() == (folder / "out.png").read_bytes()
    done("run", "--recipe", "out.png", "-o", "none.png", "--change", "none")
    assert "changes" not in text_in("none.png")
    assert images.read("none.png").pixels.tobytes() != images.read("out.png").pixels.tobytes()
    done("resume", "state.h5", "-o", "longer.png", "--iterations", "8")
    done("run", "--recipe", "longer.png", "-o", "at_once.png")
    assert (folder / "at_once.png").read_bytes() == (folder / "longer.png").read_bytes()
    assert text_in("longer.png")["changes"] == text_in("out.png")["changes"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (["2 output=/tmp/x.png"], "'output' does not change"),
        (["2 style_weight=1e400"], "no number"),
        (["9 tv_weight=1"], "comes too late: the run has 3 iterations"),
        (["2 style_layers=relu5_1"], "relu5_1"),
        (["2 tv_weight=1"] * 250, "200 times"),
        (["2 tv_weight=\x1b[31m"], "no number"),
        (["x" * 4000], "ITERATION NAME=VALUE"),
        ([2], "changes = [2]"),
        ("2 stop", "changes = '2 stop'"),
    ],
)
def test_hostile_changes_in_a_recipe(painted: Path, changes: Any, why: str) -> None:
    line = refused("run", "--recipe", rewritten("out.png", changes=changes), "-o", "none.png")
    assert why in line
    assert "\x1b" not in line
    assert len(line) < 600
    assert not (painted / "none.png").exists()


def test_a_state_and_its_changes_that_do_not_fit(painted: Path) -> None:
    """A checkpoint whose options tell of fewer changes than its state has been through."""
    state, text = checkpoint.read("state.h5")
    checkpoint.write("other.h5", replace(state, changed=(1,)), text)
    assert "has been changed 1 times, its options tell of 0" in refused("resume", "other.h5", "-o", "none.png", "--yes")
    assert not (painted / "none.png").exists()
