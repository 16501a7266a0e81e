"""What is said of files that are refused: one line, whoever reads it."""

from collections.abc import Callable
from typing import Any

import pytest

from nstgpu.engine.errors import ImageError
from nstgpu.engine.imaging import files
from nstgpu.weights import WeightsError, load_weights


def refusal(error: type[Exception], read: Callable[..., object], *arguments: Any, **options: Any) -> str:
    """The one line of the error that a call ends in."""
    with pytest.raises(error) as caught:
        read(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def picture_refusal(source: Any) -> str:
    return refusal(ImageError, files.read, source)


def weights_refusal(path: Any, **options: Any) -> str:
    """With the file's path in front, and nothing from the file that acts on a terminal."""
    message = refusal(WeightsError, load_weights, path, **options)
    assert message.isprintable()
    assert message.startswith(f"{path}: ")
    return message
