"""How `CudaDevice` hands its launches to the runtime: one by one, or several as one where it may (`together`)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from .costs import merging
from .runtime.launch import Launch
from .runtime.protocol import Runtime


class Launching:
    """What `CudaDevice` has of it, which launches what `_as_few` says."""

    _runtime: Runtime
    _run: Callable[[Sequence[Launch]], None]
    _held: list[Launch] | None = None
    """What may become one launch with what is still to come; None outside `together`."""

    @contextmanager
    def together(self) -> Iterator[None]:
        """Costs of Grams become one launch, a content cost and its gradient another, what ends an iteration a third.
        Whatever else is asked for comes after those that were asked for before."""
        if self._held is not None:
            yield
            return
        self._held = []
        try:
            yield
            last, self._held = self._merged(), None
            self._run(last)
        finally:
            self._held = None

    def _as_few(self, launches: Sequence[Launch]) -> Iterator[Launch]:
        """What is to be launched now, in order: these, and before them those that were held back."""
        for launch in launches:
            if self._held is not None and launch.kernel in merging.MERGEABLE:
                self._held.append(launch)
            else:
                yield from self._merged()
                yield launch

    def _merged(self) -> list[Launch]:
        held, self._held = self._held, None if self._held is None else []
        return merging.merged(held or [], self._runtime.address)
