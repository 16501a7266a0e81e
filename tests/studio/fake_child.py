"""Stands in for `nstgpu run` and `nstgpu resume`: the same lines and files, with no painting.

$FAKE_CHILD, JSON: iterations, pace (seconds each), frame_every, checkpoint_every, fail_at (iteration), complaint.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

WEBP = b"RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00"


def option(name: str) -> str:
    return next(word.partition("=")[2] for word in sys.argv if word.startswith(f"--{name}="))


def replaced(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)


def main() -> None:
    plan: dict[str, Any] = {
        "iterations": 10,
        "pace": 0.01,
        "frame_every": 1,
        "checkpoint_every": 1,
        "fail_at": 0,
        "complaint": "",
    }
    plan |= json.loads(os.environ.get("FAKE_CHILD", "{}"))
    frame, result = Path(option("live-lines")), Path(option("output"))
    checkpoint = result.with_name("run.ckpt")
    done = int(checkpoint.read_text()) if sys.argv[1] == "resume" else 0
    asked = {"pause": False, "stop": False, "gone": False}
    lock = threading.Lock()

    def say(event: str, **more: object) -> None:
        with lock:
            sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
            sys.stdout.flush()

    changes: list[dict[str, object]] = []

    def listen() -> None:
        for line in sys.stdin:
            told = json.loads(line)
            asked["stop"] |= bool(told.get("stop"))
            asked["pause"] = told.get("pause", asked["pause"])
            if "change" in told:
                changes.append(told["change"])
        asked["gone"] = True

    threading.Thread(target=listen, daemon=True).start()
    with result.with_name("starts.txt").open("a") as starts:
        starts.write(f"{sys.argv[1]} {done} {os.getpid()}\n")
    iterations = plan["iterations"]
    say("begun", iteration=done, size=[40, 30], device="cpu", weights="mini", scales=[], taken={"words": sys.argv[1:]})
    was_paused = False
    while done < iterations and not (asked["stop"] or asked["gone"]):
        if asked["pause"] != was_paused:
            was_paused = asked["pause"]
            say("paused" if was_paused else "resumed", iteration=done)
        if was_paused:
            time.sleep(0.01)
            continue
        while changes:
            change = changes.pop(0)
            if change.get("style_weight") == 13:
                say("refused", changes=change, why="13 is unlucky")
            else:
                say("changed", iteration=done, changes=change, taken={}, scales=[])
        time.sleep(plan["pace"])
        done += 1
        costs = {
            "iteration": done,
            "total": 1 / done,
            "content": 0.1,
            "style": 0.2,
            "tv": 0.0,
            "per_layer": {"relu1_1": 0.2},
        }
        say("progress", iteration=done, iterations=iterations, scale=1, scales=1, size=[40, 30], seconds=done * 0.1,
            remaining=(iterations - done) * 0.1, costs=[costs])  # fmt: skip
        if done % plan["frame_every"] == 0:
            replaced(frame, WEBP + b"%010d" % done)
            say("frame", iteration=done, file=frame.name, size=[40, 30])
        if done % plan["checkpoint_every"] == 0:
            replaced(checkpoint, str(done).encode())
        if done == plan["fail_at"]:
            print(plan["complaint"] or "nstgpu: the cost became NaN at iteration 3; lower the rate", file=sys.stderr)
            sys.exit(1)
    replaced(checkpoint, str(done).encode())
    from PIL import Image, PngImagePlugin

    recipe = PngImagePlugin.PngInfo()
    recipe.add_itxt("nstgpu recipe", "depth = 16\n")
    Image.new("RGB", (40, 30), (200, 100, 50)).save(result.with_name("partial.png"), pnginfo=recipe)
    result.with_name("partial.png").replace(result)
    result.with_name("report.html").write_text("<!doctype html><title>report</title>")
    replaced(result.with_name("way.webp"), WEBP)
    say("done", iteration=done, interrupted=done < iterations)
    sys.exit(143 if asked["gone"] else 0)


main()
