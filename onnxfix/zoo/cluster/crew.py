"""The workers of a Dask cluster: who there is, and who of them is fit to work on models."""

from __future__ import annotations

import pkgutil
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfix import __version__
from onnxfix.errors import OnnxfixError, UsageError
from onnxfix.zoo.cluster.sight import Sight, Unfit, look_around

if TYPE_CHECKING:
    from distributed import Client

CONNECT = 10.0
"""Seconds within which a scheduler answers."""
ARRIVE, RETURN = 30.0, 120.0
"""Seconds within which the first worker is there, and within which one comes back when all are lost."""
_LOOK = 1.0
"""Seconds between two looks at who is there."""


class ClusterError(OnnxfixError):
    """A cluster cannot be reached, or not be worked with."""


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """Connects to a scheduler.

    Args:
        address: Its address, as `dask scheduler` tells it.

    Raises:
        UsageError: Dask is not installed, or this is no address.
        ClusterError: Nobody answers there.
    """
    try:
        from distributed import Client
        from distributed.comm.addressing import get_address_host_port
    except ImportError:
        hint = "pip install 'onnxfix[dask]'"
        raise UsageError("a cluster needs Dask, which is not installed", where=address, hint=hint) from None
    try:  # before a client is made: one that was half made stops its program when it is cleared away
        if not address.startswith("inproc://"):
            get_address_host_port(address, strict=True)
    except ValueError as error:
        hint = "`dask scheduler` tells it when it starts: tcp://HOST:8786"
        message = f"this is no address of a scheduler: {error}"
        raise UsageError(message, where=address or "--scheduler", hint=hint) from None
    try:
        client = Client(address, timeout=CONNECT, set_as_default=False, name=f"onnxfix-{__version__}")
    except ImportError as error:
        raise ClusterError(f"this scheduler needs something else of Dask: {error}", where=address) from None
    except OSError:
        hint = "is it running, and is this its address?"
        message = f"no scheduler answers within {CONNECT:.0f} s"
        raise ClusterError(message, where=address, hint=hint) from None
    try:
        yield client
    finally:
        client.close()


class Crew:
    """The workers of a cluster.

    Attributes:
        fit: Those that can work, with the number of their threads.
    """

    def __init__(self, client: Client, address: str, run: str, sight: Sight) -> None:
        """Waits for a worker, and looks at all that are there.

        Args:
            client: The connection to their scheduler.
            address: Its address.
            run: The name of the run.
            sight: What they must see.

        Raises:
            ClusterError: There is none, or one is not fit.
        """
        self.fit: Mapping[str, int] = {}
        self._client = client
        self._address = address
        self._run = run
        self._sight = sight
        self._unfit: Mapping[str, Unfit] = {}
        self._lost = self._looked = 0.0
        self._await()
        for worker, unfit in sorted(self._unfit.items()):
            raise ClusterError(unfit.message, where=": ".join(filter(None, (worker, unfit.where))), hint=unfit.hint)

    def _await(self) -> None:
        latest = time.monotonic() + ARRIVE
        while not self._present():
            if time.monotonic() > latest:
                hint = f"dask worker {self._address}"
                message = f"the scheduler has no workers, and none came within {ARRIVE:.0f} s"
                raise ClusterError(message, where=self._address, hint=hint)
            time.sleep(0.1)
        self.look()

    @property
    def threads(self) -> int:
        """How many models can be worked on at a time."""
        return sum(self.fit.values())

    def look(self, anew: str = "") -> None:
        """Looks who is there now, and whether those that have come can work.

        Args:
            anew: A worker that may be another one by now, under the same address.

        Raises:
            ClusterError: All have been away for long, or the scheduler is gone.
        """
        self._looked = time.monotonic()
        present = self._present()
        known = (self.fit.keys() | self._unfit.keys()) - {anew}
        found = self._looked_at(sorted(present.keys() - known))
        fit = {worker for worker, unfit in found.items() if unfit is None}
        fit |= {worker for worker in self.fit if worker in present and worker not in found}
        self._unfit = {
            worker: unfit for worker, unfit in {**self._unfit, **found}.items() if unfit and worker in present
        }  # fmt: skip
        self.fit = {worker: present[worker] for worker in sorted(fit)}
        self._lost = 0.0 if self.fit else self._lost or time.monotonic()
        if self._lost and time.monotonic() - self._lost > RETURN:
            message = f"all workers are gone, and none came back within {RETURN:.0f} s"
            hint = "the same command goes on where it was"
            raise ClusterError(message, where=self._address, hint=hint)

    def look_at_times(self) -> bool:
        """Looks if that was not done for a while; says whether it was."""
        if time.monotonic() - self._looked < _LOOK:
            return False
        self.look()
        return True

    def _present(self) -> Mapping[str, int]:
        if self._client.status == "running":
            with suppress(OSError):
                found: Mapping[str, int] = self._client.nthreads()
                return found
        raise scheduler_gone(self._address)

    def _looked_at(self, workers: list[str]) -> dict[str, Unfit | None]:
        """Returns what is wrong with workers; those that are lost meanwhile are left out."""
        versions = self._asked(workers, pkgutil.resolve_name, "onnxfix:__version__")
        unfit = {worker: _version_trouble(said) for worker, said in versions}
        able = [worker for worker, trouble in unfit.items() if trouble is None]
        seen = {worker: _sight_trouble(said) for worker, said in self._asked(able, look_around, self._run, self._sight)}
        return {worker: trouble for worker, trouble in unfit.items() if trouble is not None} | seen

    def _asked(self, workers: list[str], question: Callable[..., object], *words: object) -> list[tuple[str, object]]:
        """Returns what workers say, or the error that kept them from it."""
        if not workers:
            return []
        try:
            said: Mapping[str, object] = self._client.run(question, *words, workers=workers, on_error="return")
        except OSError:
            raise scheduler_gone(self._address) from None
        return [(worker, answer) for worker, answer in said.items() if not isinstance(answer, OSError)]


def scheduler_gone(address: str) -> ClusterError:
    """Returns the error that a scheduler does not answer any more."""
    return ClusterError(
        "the scheduler is gone", where=address, hint="the same command goes on where it was, when there is one again"
    )


def _version_trouble(said: object) -> Unfit | None:
    if isinstance(said, ImportError | AttributeError):
        hint = f"pip install onnxfix=={__version__}, in the environment of every worker"
        return Unfit("a worker has no onnxfix", hint=hint)
    if said != __version__:
        hint = "install one version everywhere: results and journal depend on it"
        return Unfit(f"a worker has onnxfix {said}, and this is {__version__}", hint=hint)
    return None


def _sight_trouble(said: object) -> Unfit | None:
    """Returns what is wrong with what a worker sees, or with what is seen here of what it has written."""
    if isinstance(said, Unfit):
        return said
    if not isinstance(said, str):
        return Unfit(f"a worker cannot look at the files: {said}")
    if not said:
        return None
    folder = Path(said)
    try:
        (folder / "file").rename(folder / "moved")
        shutil.rmtree(folder)
    except FileNotFoundError:
        hint = "all machines must have the destination under the same name: a file system that they share"
        return Unfit("what a worker writes to the destination is not there", said, hint)
    except OSError as error:
        hint = "workers and coordinator must be the same user there"
        return Unfit(f"what a worker writes to the destination cannot be moved: {error.strerror}", said, hint)
    return None
