"""What people call a place: a folder of this machine, or a URL that fsspec reads."""

from __future__ import annotations

import re
from pathlib import Path

from onnxfix.zoo.stores.local import LocalStore
from onnxfix.zoo.stores.remote import RemoteStore
from onnxfix.zoo.stores.store import Store

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")
_OWN = re.compile(r"(file|local)://")


def place_of(text: str) -> Path | str:
    """Returns a place as people name it: a path, for `file://` too, or a URL as it stands."""
    text = _OWN.sub("", text, count=1)
    return text if is_url(text) else Path(text)


def is_url(text: str) -> bool:
    """Whether a place is named by a URL."""
    return _URL.match(text) is not None


def open_store(place: Path | str) -> Store:
    """Returns a place where files lie; nothing is asked of it yet.

    Raises:
        UsageError: Nobody knows such places, a package is missing for them, or secrets stand in the URL.
    """
    named = place_of(place) if isinstance(place, str) else place
    return LocalStore(named) if isinstance(named, Path) else RemoteStore(named)


def open_file(place: str) -> tuple[Store, str]:
    """Returns the folder of a file as a store, and what the file is called there.

    Raises:
        UsageError: As `open_store`.
    """
    if is_url(place):
        folder, _, name = place.rpartition("/")
        return RemoteStore(folder), name
    return LocalStore(Path(place).parent), Path(place).name
