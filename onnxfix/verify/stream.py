"""A model driven tick by tick, each time fed the state that it put out before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxfix.errors import DriveError
from onnxfix.verify.drive import Drive
from onnxfix.verify.session import Session

if TYPE_CHECKING:
    from onnxfix.convention.route import Array


@dataclass(frozen=True)
class Tick:
    """One streaming call of the source.

    Attributes:
        number: The tick, from 0.
        inputs: What was fed besides the state.
        state: The state before.
        put_out: How many frames or tokens were put out before.
        fetched: All outputs.
    """

    number: int
    inputs: Mapping[str, Array]
    state: Mapping[str, Array]
    put_out: int
    fetched: Mapping[str, Array]


class Stream:
    """The source as it runs."""

    def __init__(self, session: Session, drive: Drive, state: Mapping[str, Array], *, tick: int = 0, put_out: int = 0):
        self._session = session
        self._drive = drive
        self._state = state
        self._tick = tick
        self._put_out = put_out

    def step(self) -> Tick:
        """Runs one tick.

        Raises:
            DriveError: An input cannot be fed, or onnxruntime rejects what is fed.
        """
        inputs = self._drive.inputs(self._tick, self._put_out, self._state)
        feeds = {**inputs, **self._state}
        try:
            fetched = self._session.run(feeds)
        except DriveError as error:
            raise _explained(error, self._drive, feeds, self._tick) from None
        tick = Tick(self._tick, inputs, self._state, self._put_out, fetched)
        self._state = next_state(self._state, self._drive.plan.binding.feedback, fetched)
        self._put_out += self._drive.advance(feeds, fetched)
        self._tick += 1
        return tick


def next_state(state: Mapping[str, Array], pairs: Mapping[str, str], fetched: Mapping[str, Array]) -> dict[str, Array]:
    """Returns what a model is fed next; a cache that it only reads stays."""
    return {name: fetched[pairs[name]] if name in pairs else array for name, array in state.items()}


def _explained(error: DriveError, drive: Drive, feeds: Mapping[str, Array], tick: int) -> DriveError:
    """Returns the error with what was fed and what the user can set."""
    fed = ", ".join(f"{name} {list(array.shape)} ({drive.fed.get(name, 'state')})" for name, array in feeds.items())
    sizes: dict[str, int] = {}
    for port in drive.plan.binding.signature.inputs:
        dims = zip(port.dims or (), feeds[port.name].shape, strict=False)
        sizes |= {dim: size for dim, size in dims if isinstance(dim, str)}
    options = [f"--size {name}=N (it is {size})" for name, size in sizes.items()]
    # Noise is rarely what a model chokes on; an offset or a mask is.
    choice = [name for name in feeds if drive.fed.get(name) not in (None, "features")] or list(feeds)
    options += [f"--feed {error.where or choice[0]}=constant:N", "--inputs FILE.npz"]
    if tick:
        options.insert(0, f"--ticks {tick}")
    where = f"{error.where}, tick {tick}" if error.where else f"tick {tick}"
    message = f"the source cannot be driven: {error.message}"
    return DriveError(message, where=where, hint=f"it was fed {fed}\n  change that with {'; '.join(options)}")
