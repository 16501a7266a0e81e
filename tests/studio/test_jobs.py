"""Runs from their first moment to their last, by way of the API."""

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness.studio import begun, ended, opened, png, state_of, until

AS_GIVEN = {"size": 64, "style_weight": 2.0, "style_layers": ["relu1_1=2", "relu2_1"], "stop_when_settled": True}


def test_a_run_is_painted_and_kept(tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(tmp_path / "runs") as (client, _):
            run = await begun(client, **AS_GIVEN)
            found = await ended(client, run)
            assert (found["state"], found["error"], found["iteration"]) == ("done", None, 10)
            assert found["settings"] == AS_GIVEN
            assert [point["iteration"] for point in found["history"]] == list(range(1, 11))
            assert found["frames"] == list(range(1, 11))
            assert found["has"] == {"frame": True, "picture": True, "report": True, "animation": True}
            words = found["begun"]["taken"]["words"]
            wanted = ["--size=64", "--style-weight=2.0", "--style-layer=relu1_1=2", "--style-layer=relu2_1"]
            assert [word for word in words if word in (*wanted, "--stop-when-settled")] == [
                *wanted,
                "--stop-when-settled",
            ]
            folder = tmp_path / "runs" / run
            assert f"--style={folder / 'style-1.png'}" in words
            assert words[1] == str(folder / "content.png")
            assert not list((tmp_path / "runs" / ".incoming").iterdir())

    asyncio.run(check())


def test_inputs_go_to_the_child(tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(tmp_path / "runs") as (client, _):
            files = [
                ("content", ("../../etc/passwd", png((48, 36)))),
                ("style", ("C:\\a.png", png())),
                ("style", ("b", png(mode="L"))),
                ("style_mask_1", ("m", png((48, 36), "L"))),
                ("style_region_0", ("r", png(mode="L"))),
                ("content_mask", ("c", png((48, 36), "L"))),
            ]
            settings = json.dumps({"style_weights": [1, 0.5]})
            answer = await client.post("/api/runs", files=files, data={"settings": settings})
            found = await ended(client, answer.json()["id"])
            folder, words = tmp_path / "runs" / found["id"], found["begun"]["taken"]["words"]
            assert (found["styles"], found["style_masks"], found["content_mask"]) == (2, [False, True], True)
            assert f"--style={folder / 'style-2.png'}=0.5" in words
            masks = ["--style-mask=none", f"--style-mask={folder / 'style-2-mask.png'}"]
            regions = [f"--style-region={folder / 'style-1-region.png'}", "--style-region=none"]
            assert [word for word in words if "-mask=" in word and "content" not in word] == masks
            assert [word for word in words if "-region=" in word] == regions
            assert f"--content-mask={folder / 'content-mask.png'}" in words
            for address in ("content", "style/0", "style/1", "style_mask/1", "style_region/0", "content_mask"):
                assert (await client.get(f"/api/runs/{found['id']}/{address}")).status_code == 200, address
            assert (await client.get(f"/api/runs/{found['id']}/style_mask/0")).status_code == 404

            like = await client.post("/api/runs", files={"content": ("x", png((20, 20)))}, data={"like": found["id"]})
            again = await ended(client, like.json()["id"])
            assert (again["settings"], again["styles"]) == (found["settings"], 2)
            assert (again["style_masks"], again["style_regions"], again["content_mask"]) == ([], [True, False], False)
            same = await client.post("/api/runs", json={"like": found["id"], "settings": {"size": 32}})
            repeated = await ended(client, same.json()["id"])
            assert repeated["settings"] == {"size": 32}
            assert (repeated["style_masks"], repeated["content_mask"]) == ([False, True], True)

    asyncio.run(check())


def test_queue(plan: Any, tmp_path: Path) -> None:
    async def check() -> None:
        plan(iterations=10_000)
        async with opened(tmp_path / "runs") as (client, _):
            first, second, third, fourth = [await begun(client) for _ in range(4)]
            order = [run["id"] for run in (await client.get("/api/runs")).json()["runs"]]
            assert order == [first, second, third, fourth]
            assert (await client.patch(f"/api/runs/{fourth}", json={"position": 0})).status_code == 200
            assert (await client.patch(f"/api/runs/{second}", json={"position": 99})).status_code == 200
            order = [run["id"] for run in (await client.get("/api/runs")).json()["runs"]]
            assert order == [first, fourth, third, second]
            assert (await client.patch(f"/api/runs/{first}", json={"position": 0})).status_code == 409
            changed = await client.patch(f"/api/runs/{third}", json={"changes": {"size": 128}, "name": " b\n c "})
            assert (changed.json()["settings"], changed.json()["name"]) == ({"size": 128}, "b c")
            assert (await client.delete(f"/api/runs/{fourth}")).status_code == 204
            assert (await client.get(f"/api/runs/{fourth}")).status_code == 404
            await until(lambda: _iterations(client, first))
            assert (await client.patch(f"/api/runs/{first}", json={"stop": True})).status_code == 200
            stopped = await ended(client, first)
            assert (stopped["state"], stopped["has"]["picture"]) == ("stopped", True)
            assert (await ended(client, third, "running"))["settings"] == {"size": 128}
            assert (await client.patch(f"/api/runs/{second}", json={"stop": True})).json()["state"] == "stopped"
            assert (await client.delete(f"/api/runs/{third}")).status_code == 204
            assert [run["id"] for run in (await client.get("/api/runs")).json()["runs"]] == [second, first]

            resumed = await client.post(f"/api/runs/{first}/resume")
            assert resumed.json()["state"] == "running"
            await until(lambda: _iterations(client, first, beyond=stopped["iteration"]))
            assert (await client.post(f"/api/runs/{first}/resume")).status_code == 409

    asyncio.run(check())


async def _iterations(client: Any, run: str, beyond: int = 0) -> bool:
    return (await state_of(client, run))["iteration"] > beyond


def test_changes_and_pauses(plan: Any, tmp_path: Path) -> None:
    async def check() -> None:
        plan(iterations=10_000)
        async with opened(tmp_path / "runs") as (client, _):
            run = await begun(client)
            address = f"/api/runs/{run}"
            await until(lambda: _iterations(client, run))
            assert (await client.patch(address, json={"changes": {"style_weight": 3.5}})).status_code == 200
            found = await until(lambda: _changed(client, run))
            assert found[0]["changes"] == {"style_weight": 3.5}
            assert (await client.patch(address, json={"changes": {"seed": 1}})).status_code == 422
            assert (await client.patch(address, json={"pause": True})).json()["state"] == "paused"
            await asyncio.sleep(0.1)
            paused = (await state_of(client, run))["iteration"]
            await asyncio.sleep(0.1)
            assert (await state_of(client, run))["iteration"] == paused
            assert (await client.patch(address, json={"pause": False})).json()["state"] == "running"
            await until(lambda: _iterations(client, run, beyond=paused))

    asyncio.run(check())


async def _changed(client: Any, run: str) -> Any:
    return (await state_of(client, run))["changes"]


def test_a_failure_is_told_in_one_line(plan: Any, tmp_path: Path) -> None:
    async def check() -> None:
        plan(fail_at=3)
        async with opened(tmp_path / "runs") as (client, _):
            run = await begun(client)
            failed = await ended(client, run)
            assert (failed["state"], failed["iteration"]) == ("failed", 3)
            assert failed["error"] == "the cost became NaN at iteration 3; lower the rate"
            assert "became NaN" in (tmp_path / "runs" / run / "log.txt").read_text()
            plan()
            assert (await client.post(f"/api/runs/{run}/resume")).status_code == 200
            assert (await ended(client, run))["state"] == "done"
            starts = (tmp_path / "runs" / run / "starts.txt").read_text().split()
            assert (starts[0], starts[3:5]) == ("run", ["resume", "3"])

    asyncio.run(check())


def test_two_devices_paint_two_runs(plan: Any, tmp_path: Path) -> None:
    async def check() -> None:
        plan(iterations=10_000)
        async with opened(tmp_path / "runs", devices=("cpu", "reference")) as (client, _):
            runs = [await begun(client) for _ in range(3)]
            states = [(await state_of(client, run))["state"] for run in runs]
            assert states == ["running", "running", "queued"]
            words = [(await until(partial(_begun, client, run)))["taken"]["words"] for run in runs[:2]]
            assert ["--device=cpu" in words[0], "--device=reference" in words[1]] == [True, True]

    asyncio.run(check())


async def _begun(client: Any, run: str) -> Any:
    return (await state_of(client, run))["begun"]


def test_a_second_server_is_refused(tmp_path: Path) -> None:
    from nstgpu.engine.errors import SettingsError
    from nstgpu.studio.jobs.shelf import Shelf

    async def check() -> None:
        async with opened(tmp_path / "runs"):
            with pytest.raises(SettingsError, match="another nstgpu serve has the folder"):
                Shelf(tmp_path / "runs")

    asyncio.run(check())
    Shelf(tmp_path / "runs").close()
