"""The page in a real browser against a real server, whose runs are painted with `mini` at 128 px.

Needs Debian's chromium and Playwright's Python package; what Playwright would download is not used.
"""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import nstgpu

pytestmark = pytest.mark.slow  # starts programs that paint

CHROMIUM = Path("/usr/bin/chromium")
if not CHROMIUM.exists():
    REASON = f"THE STUDIO'S PAGE IS NOT TESTED: there is no {CHROMIUM}; on Debian, apt-get install chromium"
    warnings.warn(REASON, stacklevel=1)
    pytest.skip(REASON, allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", exc_type=ImportError)

ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
MARK = {"X-Nstgpu": "1"}
PATIENCE = 30_000  # milliseconds; what is waited for is there in two or three seconds, on an idle machine
SIZE = (128, 96)
FRAME = ".viewer-canvas[aria-label*=iteration]"
"""The canvas, once a frame has come."""
LONG: dict[str, Any] = {"iterations": "100000", "scales": 1}
"""Of a run that is ended by the test."""


class Server:
    """`nstgpu serve` as a process, at the same port each time that it is started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.start()

    def start(self) -> None:
        said = self.folder / "said.txt"
        command = [sys.executable, "-m", "nstgpu", "serve", "--port", str(self.port), "--folder", self.folder / "runs"]
        home = str(Path(nstgpu.__file__).parents[1])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([home, os.environ.get("PYTHONPATH", "")])}
        with said.open("w") as out:
            self.process = subprocess.Popen(
                [*map(str, command), "--device", "cpu"], stdout=out, stderr=out, env=environment
            )
        end = time.monotonic() + PATIENCE / 1000
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/", said.read_text())):
            assert self.process.poll() is None, said.read_text()
            assert time.monotonic() < end, said.read_text()
            time.sleep(0.05)
        self.port = int(found[1])
        self.address = found[0].rstrip("/")
        self.client = httpx.Client(base_url=self.address, headers=MARK, timeout=PATIENCE / 1000)

    def begin(self, name: str = "begun", **settings: Any) -> str:
        files = {"content": ("a.png", picture(1)), "style": ("b.png", picture(2))}
        told = {"settings": json.dumps(settings), "name": name}
        answer = self.client.post("/api/runs", files=files, data=told)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def runs(self) -> list[dict[str, Any]]:
        return list(self.client.get("/api/runs").json()["runs"])

    def run(self, run: str) -> dict[str, Any]:
        return dict(self.client.get(f"/api/runs/{run}").json())

    def close(self, how: int = signal.SIGTERM) -> None:
        self.client.close()
        self.process.send_signal(how)
        self.process.wait(20)


def picture(seed: int, size: tuple[int, int] = SIZE) -> bytes:
    """Colored patches as a PNG."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(encoded, "PNG")
    return encoded.getvalue()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("studio"))
    yield server
    server.close()


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """With no runs, before and after a test."""
    yield running
    for run in running.runs():
        running.client.delete(f"/api/runs/{run['id']}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """tab(width=1200) opens one; nothing that the page does may be an error of JavaScript, or against its CSP."""
    contexts, wrong = [], []

    def opened(width: int = 1200, height: int = 800) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(line.text) if "Content Security Policy" in line.text else None)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def drop(page: Any, where: str, *files: tuple[str, bytes]) -> None:
    """Lets go of files over an element."""
    given = [[name, list(content)] for name, content in files]
    transfer = page.evaluate_handle(
        """files => {
            const transfer = new DataTransfer();
            for (const [name, bytes] of files) {
                transfer.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
            }
            return transfer;
        }""",
        given,
    )
    page.dispatch_event(where, "drop", {"dataTransfer": transfer})


def spread(page: Any) -> float:
    """How much the pixels in the middle of the canvas differ: their standard deviation, of 255."""
    return float(
        page.evaluate(
            """() => {
                const canvas = document.querySelector(".viewer-canvas");
                const [width, height] = [canvas.width / 2, canvas.height / 2];
                const {data} = canvas.getContext("2d").getImageData(width / 2, height / 2, width, height);
                const reds = data.filter((_, at) => at % 4 === 0);
                const mean = reds.reduce((sum, value) => sum + value, 0) / reds.length;
                return Math.sqrt(reds.reduce((sum, value) => sum + (value - mean) ** 2, 0) / reds.length);
            }"""
        )
    )


def slide(page: Any, setting: str, position: int) -> None:
    """Moves a slider as a hand would: its value, and that it was let go."""
    slider = page.locator(f"[data-setting={setting}] input[type=range]")
    slider.fill(str(position))
    slider.dispatch_event("change")


def test_two_pictures_that_are_dropped_are_painted_and_kept(server: Server, tab: Any) -> None:
    page = tab()
    page.goto(server.address)
    drop(page, ".new", ("garden.png", picture(1)), ("brush.png", picture(2)))
    page.locator("text=garden.png").wait_for()
    page.get_by_label("A look").check()
    page.locator("button", has_text="Paint").first.click()
    page.locator(FRAME).wait_for()
    assert spread(page) > 10
    page.locator(".chip[data-state=done]").wait_for()
    assert page.locator(".title-input").input_value() == "garden"
    assert page.locator(".legend button").count() >= 3
    with page.expect_download() as taken:
        page.locator(".downloads a", has_text="16 bits").first.click()
    assert Image.open(taken.value.path()).size == SIZE
    (run,) = server.runs()
    assert server.run(run["id"])["settings"] == {"iterations": "40"}
    recipe = server.client.get(f"/api/runs/{run['id']}/recipe").text
    assert re.search(r'^iterations = "?40\b', recipe, re.MULTILINE), recipe


def test_a_weight_is_changed_in_one_tab_and_seen_in_another_and_after_a_reload(server: Server, tab: Any) -> None:
    run = server.begin(**LONG)
    first, second = tab(), tab()
    for page in (first, second):
        page.goto(f"{server.address}/#/run/{run}")
    for page in (first, second):
        page.locator(FRAME).wait_for()
    measured = server.run(run)["begun"]["taken"]["style_weight"]
    slide(first, "style_weight", 20)
    for page in (first, second):
        page.locator(".changes li", has_text="Style").wait_for()
    assert server.run(run)["changes"][0]["changes"]["style_weight"] == pytest.approx(
        measured * 2, rel=1e-6
    )  # 32^(20/100)
    assert second.locator("[data-setting=style_weight] .dial-factor").inner_text() == "× 2"
    first.reload()
    first.locator(FRAME).wait_for()
    first.locator(".changes li").first.wait_for()
    assert first.locator(".changes li").count() == 1
    assert first.locator("[data-setting=style_weight] .dial-factor").inner_text() == "× 2"
    number = first.locator("[data-setting=style_weight] input[type=text]")
    number.fill("much")
    number.press("Tab")
    assert "not a number" in first.locator("[data-setting=style_weight] .error-line").inner_text()
    first.locator("button", has_text="Pause").click()
    second.locator(".chip[data-state=paused]").wait_for()
    second.locator(".actions button", has_text="Go on").first.click()
    first.locator(".chip[data-state=running]").wait_for()
    first.locator("button", has_text="Stop and keep").click()
    second.locator(".chip[data-state=stopped]").wait_for()
    assert server.client.get(f"/api/runs/{run}/picture?format=png").status_code == 200


def test_a_mask_is_painted_undone_and_sent(server: Server, tab: Any) -> None:
    page = tab()
    page.goto(server.address)
    drop(page, ".new", ("a.png", picture(1)), ("b.png", picture(2)))
    page.locator(".card", has_text="a.png").locator("button", has_text="Mask").click()
    box = page.locator(".mask-canvas").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 1, middle[1], steps=2)
    page.mouse.up()
    page.locator(".mask-dialog button", has_text="Invert").click()
    page.keyboard.press("Control+z")
    page.locator(".mask-dialog button", has_text="Done").click()
    page.locator("button", has_text="Masked").wait_for()
    page.locator("button", has_text="Paint").first.click()
    page.locator(".run").wait_for()
    (run,) = server.runs()
    answer = server.client.get(f"/api/runs/{run['id']}/content_mask")
    mask = np.asarray(Image.open(io.BytesIO(answer.content)).convert("L"))
    assert mask.shape == SIZE[::-1]
    assert mask[SIZE[1] // 2, SIZE[0] // 2] == 255
    assert mask[0, 0] == mask[-1, -1] == 0
    assert ((mask > 20) & (mask < 235)).any(), "the edge is soft"


def test_a_painting_that_is_not_there_is_said_to_be_missing(server: Server, tab: Any) -> None:
    page = tab()
    page.goto(f"{server.address}/#/run/2026-01-01-000000-aaaaaa")
    page.locator("text=There is no such painting").wait_for()
    time.sleep(1.2)  # a lost connection is told of after 0.9 s
    assert page.locator("#connection").inner_text() == ""


def test_a_server_that_is_killed_is_waited_for_and_goes_on(server: Server, tab: Any) -> None:
    run = server.begin(**LONG)
    page = tab()
    page.goto(f"{server.address}/#/run/{run}")
    page.locator(FRAME).wait_for()
    server.close(signal.SIGKILL)
    page.locator("#connection", has_text="away").wait_for()
    before = server.folder / "runs" / run / "job.json"
    assert before.exists()
    server.start()
    page.locator("#connection:empty").wait_for(state="attached")
    seen = page.locator(FRAME).get_attribute("aria-label")
    page.wait_for_selector(f'.viewer-canvas:not([aria-label="{seen}"])')
    assert server.run(run)["state"] == "running"


def test_nothing_hangs_over_at_320_pixels(server: Server, tab: Any) -> None:
    run = server.begin(**LONG)
    page = tab(width=320, height=600)
    for address in ("#/new", f"#/run/{run}", f"#/compare/{run},{run}"):
        page.goto(f"{server.address}/{address}")
        page.locator("h1").first.wait_for()
        if address.startswith("#/run"):
            page.locator(FRAME).wait_for()
        assert page.evaluate("() => document.documentElement.scrollWidth") == 320, address
    page.locator("#rail-toggle").click()
    page.locator(".run-item a").click()
    page.locator(".run").wait_for()
    assert page.locator("#rail-toggle").get_attribute("aria-expanded") == "false"


def test_by_keyboard_alone(server: Server, tab: Any) -> None:
    first, second, third = (server.begin(name, **LONG) for name in ("first", "second", "third"))
    page = tab()
    page.goto(f"{server.address}/#/run/{first}")
    page.locator(FRAME).wait_for()

    def tab_to(selector: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        pytest.fail(f"Tab never came to {selector}")

    tab_to("#skip")
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"
    tab_to(".viewer-canvas")
    page.keyboard.press("+")
    page.keyboard.press("b")
    page.locator(".divider").wait_for()
    tab_to(".divider")
    page.keyboard.press("ArrowRight")
    assert page.locator(".divider").get_attribute("aria-valuenow") == "52"
    tab_to("[data-setting=content_weight] input[type=range]")
    page.keyboard.press("ArrowRight")
    page.locator(".changes li", has_text="Content").wait_for()
    page.goto(f"{server.address}/#/new")
    tab_to(f".run-link[href='#/run/{second}']")
    page.keyboard.press("Alt+ArrowDown")
    page.locator("#announcer", has_text="Moved to place 2 of 2").wait_for(state="attached")
    assert [run["id"] for run in server.runs()] == [first, third, second]
    page.keyboard.press("Enter")
    page.locator(f".run-item.current[data-id='{second}']").wait_for()
    tab_to(".run-item.current [data-part=menu]")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.locator("#confirm-no:focus").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator(f".run-item[data-id='{second}']").wait_for(state="detached")
    assert [run["id"] for run in server.runs()] == [first, third]
