"""What is in a zoo that lies elsewhere: one listing, and nothing is opened; see `onnxfix.zoo.survey`."""

from __future__ import annotations

import glob
from collections.abc import Iterable

from onnxfix.errors import UsageError
from onnxfix.zoo.stores.places import is_url, open_store
from onnxfix.zoo.stores.remote import RemoteStore
from onnxfix.zoo.stores.store import STATE, Look
from onnxfix.zoo.survey import MANIFEST, REMNANT, Gap, Kind, Member, Survey, is_model_name


def survey_remote(place: str, skip: str = "") -> Survey:
    """Finds what is in a zoo that lies elsewhere.

    Args:
        place: The URL of a folder or a file, or a glob (`s3://bucket/models/**/*.onnx`).
        skip: The URL of a folder that is none of it.

    Raises:
        UsageError: There is no such place, or it cannot be read by anybody here.
        StoreError: It does not answer.
    """
    store = RemoteStore(place)
    ours = _below(store, skip)
    found = {path: look for path, look in _all(store) if not ours or not path.startswith(ours)}
    if found:
        return _survey(store, {path: look for path, look in found.items() if path != MANIFEST})
    folder, _, name = store.place.rpartition("/")
    if not folder.endswith("/"):
        parent = RemoteStore(folder)
        if (look := dict(_all(parent)).get(name)) is not None:
            return _survey(parent, {name: look})
    if glob.has_magic(place):
        return _matching(place, skip)
    hint = "name the bucket or folder that holds the models"
    raise UsageError("there is no such folder, file or glob", where=place, hint=hint)


def _all(store: RemoteStore) -> Iterable[tuple[str, Look]]:
    """Returns all files; none where there is no such bucket."""
    return store.remember().items()


def _matching(place: str, skip: str) -> Survey:
    from onnxfix.zoo.manifest import glob_pattern

    parts = place.split("/")
    fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    store = RemoteStore("/".join(parts[:fixed]))
    pattern, ours = glob_pattern("/".join(parts[fixed:])), _below(store, skip)
    found = {
        path: look for path, look in _all(store)
        if pattern.fullmatch(path) and not (ours and path.startswith(ours)) and STATE not in path.split("/")
    }  # fmt: skip
    if not found:
        raise UsageError("no file has such a name", where=place, hint="quote it, so that the shell leaves it alone")
    return _survey(store, found)


def _below(store: RemoteStore, skip: str) -> str:
    """Returns what the paths of a folder start with; empty where it does not lie in the store."""
    if not is_url(skip):
        return ""
    inner = open_store(skip).identity
    return f"{inner.removeprefix(store.identity)[1:]}/" if inner.startswith(f"{store.identity}/") else ""


def _survey(store: RemoteStore, found: dict[str, Look]) -> Survey:
    members, gaps = [], []
    for path, look in sorted(found.items()):
        parts = path.split("/")
        kind = Kind.MODEL if is_model_name(parts[-1]) else Kind.OTHER
        if STATE in parts or REMNANT.fullmatch(parts[-1]):
            continue
        if {"", ".", ".."} & {*parts} or "\0" in path:
            gaps.append(Gap(path, "its name is no path of a file: rename it", kind is Kind.MODEL))
        else:
            members.append(Member(path, kind, look.size, look.stamp))
    return Survey(store, tuple(members), tuple(gaps))
