"""What a run ends in: the picture, and what is known of how it came about."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from .costs.terms import Costs
from .imaging import files
from .optimizers.coarse_to_fine import ScaleDone
from .types import Image
from .wording import counted


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run."""

    image: Image
    """(H, W, 3) in [0, 1]."""
    history: list[Costs]
    """The costs each iteration started from."""
    interrupted: bool
    """Ended before its last iteration, by Ctrl-C or by the callback."""
    recipe: Mapping[str, str]
    """Settings and weights that made it, as text."""
    alpha: NDArray[np.float32] | None = None
    """The content's transparency, (H, W), where it had one."""
    scales: tuple[ScaleDone, ...] = ()

    def save(self, path: str | Path, *, depth: Literal[8, 16] = 8, quality: int | None = None) -> None:
        """Writes PNG, JPEG, WebP or TIFF by suffix, with the recipe inside; a missing folder is made.

        Raises ImageError.
        """
        files.save(path, self.image, alpha=self.alpha, recipe=self.recipe, depth=depth, quality=quality)

    def write(self, file: BinaryIO, *, depth: Literal[8, 16] = 8) -> None:
        """Writes the PNG that `save` would into an open file; raises ImageError, and OSError where it takes no more."""
        files.write_png(file, self.image, alpha=self.alpha, recipe=self.recipe, depth=depth)

    def __repr__(self) -> str:
        height, width, _ = self.image.shape
        parts = [f"{width}x{height}", counted(len(self.history), "iteration")]
        if self.history:
            parts.append(f"cost {self.history[0].total:.4g} -> {self.history[-1].total:.4g}")
        return f"<Result {', '.join([*parts, *(['interrupted'] if self.interrupted else [])])}>"

    def _repr_png_(self) -> bytes:
        """How a notebook shows it."""
        return files.encode(self.image, "PNG", alpha=self.alpha)
