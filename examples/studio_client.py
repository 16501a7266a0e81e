"""Paints a picture on a server, `nstgpu serve`, and watches it: python studio_client.py CONTENT STYLE [ADDRESS]"""

import json
import sys
from pathlib import Path

import httpx
from websockets.sync.client import connect

content, style, address = [*sys.argv[1:], "127.0.0.1:8642"][:3]
with httpx.Client(base_url=f"http://{address}", headers={"X-Nstgpu": "1"}, timeout=60) as studio:
    pictures = {"content": Path(content).read_bytes(), "style": Path(style).read_bytes()}
    run = studio.post("/api/runs", files=pictures, data={"settings": '{"size": 256}'}).raise_for_status().json()["id"]
    with connect(f"ws://{address}/api/live?run={run}") as live:
        for event in (json.loads(told) for told in live if isinstance(told, str)):
            if event["event"] == "progress":
                print(f"{event['iteration']} of {event['iterations']}, cost {event['costs'][-1]['total']:.4g}")
            if event["event"] == "state" and event["run"]["state"] in ("done", "stopped", "failed"):
                break
    Path(f"{run}.png").write_bytes(studio.get(f"/api/runs/{run}/picture").raise_for_status().content)
