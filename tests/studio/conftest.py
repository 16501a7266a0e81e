"""Tests of the studio need the extra `serve` and httpx, and are left out where they are missing."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

if any(find_spec(name) is None for name in ("starlette", "uvicorn", "websockets", "python_multipart", "httpx")):
    collect_ignore_glob = ["*"]


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """plan(iterations=10, pace=0.01, ...): what the next fake children do."""

    def told(**what: Any) -> None:
        monkeypatch.setenv("FAKE_CHILD", json.dumps(what))

    return told
