"""The description is true: every address is walked, and what comes back is as it says."""

import asyncio
from pathlib import Path
from typing import Any

from harness.studio import begun, ended, opened, png

CALLS: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/api/runs"): {"files": {"content": png(), "style": png(), "content_mask": png(mode="L")}},
    ("POST", "/api/example"): {"json": {"settings": {"size": 64}}},
    ("PATCH", "/api/runs/{id}"): {"json": {"name": "other"}},
}


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value is as a JSON schema says, as far as the studio's go."""
    if "anyOf" in schema:
        return any(fits(value, one) for one in schema["anyOf"])
    kinds: dict[str, Any] = {
        "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int,
        "number": (int, float),
    }  # fmt: skip
    kind = schema.get("type")
    if kind is not None and (not isinstance(value, kinds[kind]) or (kind != "boolean" and isinstance(value, bool))):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if kind == "array":
        within = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        return within and all(fits(one, schema["items"]) for one in value)
    if kind == "object":
        known, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        if set(schema.get("required", ())) - set(value) or (more is False and set(value) - set(known)):
            return False
        return all(fits(one, known.get(name, more if isinstance(more, dict) else {})) for name, one in value.items())
    return True


def test_every_address_is_as_described(tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(tmp_path / "runs") as (client, studio):
            described = (await client.get("/openapi.json")).json()
            routed = {
                (method, route.path.replace(":int}", "}"))
                for route in studio_routes(client)
                for method in route.methods - {"HEAD"}
                if route.path != "/"
            }
            listed = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
            assert listed == routed
            run, stopped = await begun(client), await begun(client)
            await ended(client, run)
            await ended(client, stopped)
            job = studio.job(stopped)
            masks = await client.post(
                "/api/runs",
                files={"content": png(), "style": png(), "content_mask": png(mode="L"), "style_mask_0": png(mode="L"),
                       "style_region_0": png(mode="L")},
            )  # fmt: skip
            run = masks.json()["id"]
            await ended(client, run)
            job.record = job.record.__class__(**{**vars(job.record), "state": "failed"})  # which can be gone on with
            last = [("POST", "/api/runs/{id}/resume"), ("DELETE", "/api/runs/{id}")]
            for method, path in [*sorted(listed - set(last)), *last]:
                operation = described["paths"][path][method.lower()]
                assert operation["summary"]
                number = "1" if "frames" in path else "0"
                address = path.replace("{id}", stopped if (method, path) in last else run).replace("{number}", number)
                answer = await client.request(method, address, **CALLS.get((method, path), {}))
                wanted = next(status for status in operation["responses"] if status != "default")
                assert str(answer.status_code) == wanted, (method, path, answer.text)
                if "content" not in operation["responses"][wanted]:
                    continue
                kind = answer.headers["content-type"].partition(";")[0]
                schema = operation["responses"][wanted]["content"][kind]["schema"]
                if kind == "application/json":
                    assert fits(answer.json(), schema), (method, path, answer.json())
                else:
                    assert answer.content
                refused = await client.request(method, address.replace(run, "2026-01-01-000000-abcdef") + "x")
                assert fits(refused.json(), operation["responses"]["default"]["content"]["application/json"]["schema"])

    asyncio.run(check())


def studio_routes(client: Any) -> list[Any]:
    from starlette.routing import Route

    return [route for route in client._transport.app.routes if isinstance(route, Route)]
