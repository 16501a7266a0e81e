"""How `CudaDevice` hands its launches to the runtime: one by one, or several as one where it may (`together`)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from .costs import merging
from .runtime.launch import Launch
from .runtime.protocol import Runtime


class Launching:
    """What `CudaDevice` has of it."""

    on_launch: Callable[[Launch], None] | None
    _runtime: Runtime
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
            self._release()
        finally:
            self._held = None

    def _run(self, launches: Sequence[Launch]) -> None:
        for launch in launches:
            if self._held is not None and launch.kernel in merging.MERGEABLE:
                self._held.append(launch)
            else:
                self._release()
                self._launch(launch)

    def _release(self) -> None:
        held, self._held = self._held, None if self._held is None else []
        for launch in merging.merged(held or [], self._runtime.address):
            self._launch(launch)

    def _launch(self, launch: Launch) -> None:
        if self.on_launch is not None:
            self.on_launch(launch)
        self._runtime.launch(launch)
