"""A short campaign of damaged files, and that a campaign would see what it looks for."""

import itertools
from pathlib import Path

import pytest

from faults import campaign, mutations, reading, seeds

SHORT = {"pictures": 160, "weights": 120, "recipes": 100, "checkpoints": 60}


@pytest.mark.parametrize("kind", seeds.KINDS)
def test_damaged_files_are_read_or_refused_in_one_line(kind: str) -> None:
    tally = campaign.Tally()
    campaign.run([kind], iter(range(SHORT[kind])), tally)
    assert not tally.findings, str(tally)
    assert sum(tally.outcomes.values()) == SHORT[kind]
    assert tally.outcomes[kind, "refused"] > SHORT[kind] / 2


@pytest.mark.parametrize("kind", seeds.KINDS)
def test_seeds_are_read(kind: str, tmp_path: Path) -> None:
    for path in seeds.make(tmp_path, kind):
        assert reading.outcome(kind, path)[0] == "read", path.name


FOUND = {"recipes": (2_000_002_250, 2_000_006_215)}
"""What campaigns found, by kind: a key of 5000 characters, told whole."""


@pytest.mark.parametrize(("kind", "number"), [(kind, number) for kind in FOUND for number in FOUND[kind]])
def test_what_was_found_is_mended(kind: str, number: int) -> None:
    tally = campaign.Tally()
    campaign.run([kind], iter([number]), tally)
    assert not tally.findings, str(tally)


def test_a_number_tells_the_file(tmp_path: Path) -> None:
    files = [(path.name, path.read_bytes()) for path in seeds.make(tmp_path, "recipes")]
    assert campaign.damaged("recipes", 7, files) == campaign.damaged("recipes", 7, files)
    assert len({campaign.damaged("recipes", number, files)[1] for number in range(50)}) > 40


def test_a_changed_checkpoint_with_its_seal_renewed_is_looked_into(tmp_path: Path) -> None:
    (path,) = seeds.make(tmp_path, "checkpoints")
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    assert "not those that were written" in reading.outcome("checkpoints", path)[1]
    path.write_bytes(mutations.sealed_checkpoint(bytes(content)))
    assert "not those that were written" not in reading.outcome("checkpoints", path)[1]


def test_what_is_no_answer_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = seeds.make(tmp_path, "recipes")
    for error in (ZeroDivisionError("x"), MemoryError(), reading.nstgpu.SettingsError("two\nlines"), SystemExit(1)):

        def fail(_: Path, error: BaseException = error) -> str:
            raise error

        monkeypatch.setitem(reading.READ, "recipes", fail)
        assert reading.outcome("recipes", path)[0] == "fault", error


def test_a_worker_that_dies_or_hangs_is_a_finding_and_the_next_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = seeds.make(tmp_path, "recipes")
    reader = campaign.Reader("recipes")
    try:
        assert reader.read(path)[0] == "read"
        assert reader._process is not None
        reader._process.kill()
        reader._process.wait()
        how, what = reader.read(path)
        assert (how, what) == ("fault", "the process ended with -9")
        monkeypatch.setattr(campaign, "MOST_SECONDS", 0.0)
        how, what = reader.read(path)
        assert (how, what) == ("fault", "no answer in 0 s")
        monkeypatch.undo()
        assert reader.read(path)[0] == "read"
    finally:
        reader.close()


def test_an_endless_campaign_ends_in_time() -> None:
    tally = campaign.Tally()
    campaign.run(["recipes"], itertools.count(), tally, ends=0.0)
    assert not tally.outcomes
