"""Who may talk to a server, on this machine and beyond."""

import asyncio
import io
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from harness.studio import begun, ended, opened, png
from nstgpu.studio.limits import Limits
from nstgpu.studio.pictures.decoders import Decoders, Unreadable
from nstgpu.studio.web.guard import COOKIE, Access, is_loopback

BEYOND = Access("0.0.0.0", "the-token")


def test_beyond_loopback_a_token_is_needed(tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(tmp_path / "runs", access=BEYOND) as (client, _):

            async def status(address: str = "/api/runs", **headers: str) -> httpx.Response:
                return await client.get(address, headers=headers)

            for headers in ({}, {"Authorization": "Bearer other"}, {"Cookie": f"{COOKIE}=other"}, {"Cookie": "=;;"}):
                refused = await status(**headers)
                assert refused.status_code == 401
                assert "the-token" not in refused.text
            assert (await status(Authorization="Bearer the-token")).status_code == 200
            assert (await status("/api/runs?token=the-token")).status_code == 401  # in the page's address alone
            entered = await status("/?token=the-token")
            assert (entered.status_code, entered.headers["location"]) == (303, "/")
            cookie = entered.headers["set-cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=strict" in cookie
            assert (await status(Cookie=cookie.partition(";")[0])).status_code == 200
            authorized = {"Authorization": "Bearer the-token"}
            assert (await status(**authorized, Host="192.168.1.5:8642")).status_code == 200
            assert (await status(**authorized, Host="evil.example")).status_code == 403
            client.cookies.clear()
            assert (await client.post("/api/example", headers={"X-Nstgpu": "1"})).status_code == 401

    asyncio.run(check())


HOSTS = {
    "127.0.0.1": True,
    "::1": True,
    "localhost": True,
    "127.1.2.3": True,
    "0.0.0.0": False,
    "::": False,
    "a.b": False,
}


@pytest.mark.parametrize(("host", "local"), HOSTS.items())
def test_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) == local


def test_every_answer_is_strict(tmp_path: Path) -> None:
    async def check() -> None:
        async with opened(tmp_path / "runs") as (client, _):
            run = await begun(client)
            await ended(client, run)
            for address in ("/", "/static/index.html", "/api/runs", "/nothing", f"/api/runs/{run}/content"):
                headers = (await client.get(address)).headers
                assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["referrer-policy"] == "no-referrer"
                assert headers["cross-origin-resource-policy"] == "same-origin"
                assert "server" not in headers
            report = (await client.get(f"/api/runs/{run}/report")).headers
            assert "script-src" not in report["content-security-policy"]
            assert report["content-security-policy"].startswith("sandbox")

    asyncio.run(check())


def test_pictures_are_kept_without_their_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    exif[0x0112] = 6  # turned

    async def check() -> None:
        async with opened(tmp_path / "runs") as (client, _):
            files: dict[str, Any] = {"content": png((40, 30), kind="JPEG", exif=exif), "style": png(kind="TIFF")}
            run = (await client.post("/api/runs", files=files)).json()["id"]
            kept = (await client.get(f"/api/runs/{run}/content")).content
            with Image.open(io.BytesIO(kept)) as picture:
                assert (picture.format, picture.size, picture.mode) == ("PNG", (30, 40), "RGB")
                assert not picture.getexif()
            assert b"where I live" not in kept

    asyncio.run(check())


def test_decoding_is_limited(tmp_path: Path) -> None:
    """By the system: of memory, the process ends; what it says then is one line."""
    (tmp_path / "content").write_bytes(png())

    async def check() -> None:
        with pytest.raises(Unreadable, match=r"^content: decoding took more than 0.1 GiB of memory or 60 s"):
            await Decoders(Limits(decode_memory=100 << 20)).accept(tmp_path, ["content"])
        assert await Decoders(Limits()).accept(tmp_path, ["content"]) == {"content": (40, 30)}

    asyncio.run(check())
