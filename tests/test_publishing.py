"""What is said of the project in several places is the same in all of them, and what CI does elsewhere is done here."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

import nstgpu

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

yaml = pytest.importorskip("yaml")
ROOT = Path(nstgpu.__file__).parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def test_the_version_is_one() -> None:
    assert read("CITATION.cff")["version"] == nstgpu.__version__
    assert read("packaging/conda/recipe.yaml")["context"]["version"] == nstgpu.__version__
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert nstgpu.__version__ in headings or headings == ["Unreleased"]


def test_the_conda_recipe_needs_what_the_package_needs() -> None:
    def spelled(requirement: str) -> str:
        return requirement.partition(";")[0].replace(">=", " >=").strip()

    recipe = read("packaging/conda/recipe.yaml")
    needed = {f"python {PROJECT['requires-python']}", *map(spelled, PROJECT["dependencies"])}
    assert set(recipe["requirements"]["run"]) == needed
    assert recipe["about"]["license"] == PROJECT["license"]
    assert recipe["about"]["summary"] == PROJECT["description"]
    (script,) = (f"{name} = {target}" for name, target in PROJECT["scripts"].items())
    assert recipe["build"]["python"]["entry_points"] == [script]


def test_workflows_run_what_runs_here() -> None:
    """Every command of a workflow is one of .ci's, or a way to install and test that .ci/run and the README have."""
    ours = (ROOT / ".ci/run").read_text() + (ROOT / ".ci/package").read_text() + (ROOT / "README.md").read_text()
    assert WORKFLOWS
    for path in WORKFLOWS:
        for name, job in yaml.safe_load(path.read_text())["jobs"].items():
            assert "uses" in job or 0 < job["timeout-minutes"] <= 60, f"{path.name}: {name} may run for hours"
            for step in job.get("steps", ()):
                command = step.get("run")
                if command is None or command.startswith("python -m pip install"):
                    continue
                if script := re.match(r"bash (\.ci/\w+)", command):
                    assert (ROOT / script[1]).is_file()
                elif command.startswith("test "):
                    assert "__version__" in command
                else:
                    words = command.removeprefix("python ").removeprefix("nstgpu ").split()[:3]
                    assert " ".join(words) in ours, f"{path.name}: {command}"


def test_the_pythons_are_the_same_everywhere() -> None:
    classified = {each.rpartition(" ")[2] for each in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", each)}
    jobs = read(".github/workflows/ci.yml")["jobs"]
    tested = {
        version for job in jobs.values() for version in job.get("strategy", {}).get("matrix", {}).get("python", ())
    }
    tested |= {str(step["with"]["python-version"]) for step in jobs["everything"]["steps"] if "with" in step}
    assert tested == classified
    assert min(classified, key=lambda version: int(version[2:])) == PROJECT["requires-python"].removeprefix(">=")


def test_links_of_the_pages_that_a_newcomer_meets_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / ".github").glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
