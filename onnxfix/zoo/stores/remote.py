"""A folder that fsspec reaches: a bucket, a repository of models, the memory of this process."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfix.errors import UsageError
from onnxfix.zoo.failure import is_disk_full
from onnxfix.zoo.stores.passwords import blank, require_none
from onnxfix.zoo.stores.store import STATE, Look, StoreError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

STAGE = f"{STATE}/stage"
"""Where files lie that nobody sees yet."""
_BLOCK = 1 << 20
_STAMPS = (
    "md5Hash", "content_md5", "sha256", "blob_id", "crc32c", "ETag", "etag", "e_tag", "generation", "LastModified",
    "last_modified", "mtime", "modified", "updated", "created",
)  # fmt: skip
"""What file systems call that which changes with a file, the most telling first: digests stay when nothing changes."""


class RemoteStore:
    """A folder that fsspec reaches: a `Store`.

    Attributes:
        place: Its URL.
        is_lost: Whether it did not answer the last time.
    """

    folder = None

    def __init__(self, place: str) -> None:
        """Finds out who can reach it; nothing is asked of it yet.

        Raises:
            UsageError: Nobody knows such places, a package is missing for them, or secrets stand in the URL.
        """
        require_none(place)
        self.place = place.rstrip("/") if not place.endswith("://") else place
        self.is_lost = False
        self._system = _system(self.place)
        self._base = str(self._system._strip_protocol(self.place)).rstrip("/")
        self._has_folders = not _is_for_objects(self._system)
        self._seen: dict[str, Look] | None = None
        self._stale: set[str] = set()

    @property
    def identity(self) -> str:
        """Its URL, by whatever name people call the protocol: `s3a://` is `s3://`."""
        known = self._system.protocol
        return f"{known if isinstance(known, str) else known[0]}://{self.place.partition('://')[2]}"

    @property
    def is_here(self) -> bool:
        """Whether it lives in this process alone."""
        return self.place.startswith("memory://")

    def at(self, path: str) -> str:
        """Returns the URL of a file."""
        return f"{self.place}/{path}"

    # What is there.

    def remember(self) -> Mapping[str, Look]:
        """Looks at all files at once, instead of at one after another, and returns what is seen, by path."""
        with self._asked():
            self._system.invalidate_cache()
            try:
                found = self._system.find(self._base, detail=True)
            except FileNotFoundError:
                found = {}
        start = len(self._base) + 1
        files = {name[start:]: info for name, info in sorted(found.items()) if info["type"] == "file"}
        self._seen = {path: look_of(info) for path, info in files.items() if path}
        self._stale.clear()
        return self._seen

    def look(self, path: str) -> Look | None:
        """Returns what is seen of a file; None where there is none."""
        if self._seen is not None and path not in self._stale:
            return self._seen.get(path)
        found = self._look(path)
        if self._seen is not None:
            self._stale.discard(path)
            self._seen.pop(path, None)
            if found is not None:
                self._seen[path] = found
        return found

    def _look(self, path: str) -> Look | None:
        with self._asked(path):
            self._system.invalidate_cache()
            try:
                info = self._system.info(self._key(path))
            except FileNotFoundError:
                return None
        return look_of(info) if info["type"] == "file" else None

    def digest(self, path: str) -> str:
        """Returns the SHA-256 of a file's bytes."""
        digest = hashlib.sha256()
        with self._asked(path), self._system.open(self._key(path), "rb") as content:
            while block := content.read(_BLOCK):
                digest.update(block)
        return digest.hexdigest()

    def read(self, path: str) -> bytes | None:
        """Returns what a small file holds; None where there is none."""
        with self._asked(path):
            self._system.invalidate_cache()
            try:
                return bytes(self._system.cat_file(self._key(path)))
            except FileNotFoundError:
                return None

    def fetch(self, path: str, file: Path) -> None:
        """Copies a file to this machine's disk."""
        with self._asked(path):
            self._system.get_file(self._key(path), str(file))

    # What becomes of it.

    def take(self, file: Path, path: str) -> None:
        """Copies a file of this machine into the store: to its stage, and from there into place."""
        staged = path if path.startswith(f"{STAGE}/") else f"{STAGE}/{secrets.token_hex(8)}"
        with self._asked(path):
            self._make_room(self._key(staged))
            self._system.put_file(str(file), self._key(staged))
        if staged != path:
            self.move(self.at(staged), path)

    def copy(self, other: RemoteStore, path: str) -> bool:
        """Copies a file of another store without taking it along; says whether that can be done."""
        if other._system is not self._system or self._has_folders:
            return False
        staged = f"{STAGE}/{secrets.token_hex(8)}"
        with self._asked(path):
            self._system.cp_file(other._key(path), self._key(staged))
        self.move(self.at(staged), path)
        return True

    def move(self, staged: str, path: str) -> None:
        """Moves a file within the store, over what may stand there."""
        source, target = self._key(staged.removeprefix(f"{self.place}/")), self._key(path)
        self._stale.add(path)
        with self._asked(path):
            if not self._has_folders:
                self._system.cp_file(source, target)
                self._system.rm_file(source)
                return
            self._make_room(target)
            if self._system.exists(target):  # not every file system moves over what is there
                self._system.rm_file(target)
            self._system.mv(source, target)

    def remove(self, path: str) -> None:
        """Removes a file, if it is there."""
        self._stale.add(path)
        with self._asked(path), contextlib.suppress(FileNotFoundError):
            self._system.rm_file(self._key(path))

    def sweep(self) -> None:
        """Removes what is not finished, and the folders that some file systems have."""
        with self._asked():
            self._system.invalidate_cache()
            found = self._system.find(self._key(STAGE), withdirs=True, detail=True)
            for name, info in sorted(found.items(), reverse=True):
                if info["type"] == "file":
                    with contextlib.suppress(FileNotFoundError):
                        self._system.rm_file(name)
            for name in [name for name, info in sorted(found.items(), reverse=True) if info["type"] != "file"]:
                with contextlib.suppress(OSError, NotImplementedError):  # where there are no folders, it is gone
                    self._system.rmdir(name)

    def write(self, path: str, content: bytes, *, is_new: bool = False) -> bool:
        """Writes a small file.

        Args:
            path: Where.
            content: What.
            is_new: Whether nothing may stand there; not all stores can tell in the same breath.

        Returns:
            False if something stands there.
        """
        if is_new and self._look(path) is not None:
            return False
        with self._asked(path):
            self._make_room(self._key(path))
            try:
                self._system.pipe_file(self._key(path), content, mode="create" if is_new else "overwrite")
            except (NotImplementedError, TypeError):  # it has no such modes
                self._system.pipe_file(self._key(path), content)
            except OSError:
                if is_new and self._system.exists(self._key(path)):  # not all say it with FileExistsError
                    return False
                raise
        return True

    def require(self) -> None:
        """Checks that it answers.

        Raises:
            StoreError: It does not.
        """
        with self._asked():
            self._system.invalidate_cache()
            self._system.info(self._base)

    def _make_room(self, key: str) -> None:
        """Makes the folder of a file, where there are folders."""
        if self._has_folders:
            self._system.makedirs(key.rpartition("/")[0], exist_ok=True)

    def _key(self, path: str) -> str:
        return f"{self._base}/{path}"

    @contextlib.contextmanager
    def _asked(self, path: str = "") -> Iterator[None]:
        """Lets the block ask something of the store, and says what is wrong."""
        try:
            yield
        except Exception as error:  # of whatever library
            if is_disk_full(error):  # of this machine
                raise
            self.is_lost = not isinstance(error, FileNotFoundError | PermissionError)
            raise store_error(error, self.at(path) if path else self.place, self._system) from None
        self.is_lost = False


def look_of(info: Mapping[str, object]) -> Look:
    """Returns what is seen of a file that fsspec tells of."""
    for key in _STAMPS:
        stamp = info.get(key)
        if stamp:
            text = repr(stamp.timestamp()) if isinstance(stamp, datetime) else str(stamp).strip('"')
            return Look(_size(info), text)
    return Look(_size(info), "")


def _size(info: Mapping[str, object]) -> int:
    size = info.get("size")
    return size if isinstance(size, int) else 0


def store_error(error: Exception, place: str, system: AbstractFileSystem) -> StoreError:
    """Returns what an error of whatever library means, without secrets."""
    text = blank(" ".join(str(error).split()) or type(error).__name__, system.storage_options)
    keys = "the credentials and their rights: they are those of the store's own library, or of fsspec's configuration"
    if isinstance(error, FileNotFoundError):
        return StoreError("there is no such file, folder or bucket", where=place, hint="look at its name")
    if isinstance(error, PermissionError):
        return StoreError(f"access is refused: {text}", where=place, hint=f"look at {keys}")
    if "redential" in type(error).__name__:
        return StoreError(f"there are no credentials: {text}", where=place, hint=f"look at {keys}")
    hint = "see that it can be reached, and run the same command again"
    return StoreError(f"the store does not answer: {type(error).__name__}: {text}", where=place, hint=hint)


def _is_for_objects(system: AbstractFileSystem) -> bool:
    """Whether what it holds is copied and removed instead of moved, and needs no folders: SFTP and the like move."""
    from fsspec import AbstractFileSystem
    from fsspec.asyn import AsyncFileSystem

    kind = type(system)
    is_async = system.async_impl and issubclass(kind, AsyncFileSystem)
    return kind.mv is AbstractFileSystem.mv or (is_async and kind._cp_file is not AsyncFileSystem._cp_file)


def _system(place: str) -> AbstractFileSystem:
    hint = "pip install 'onnxfix[remote]', and what fsspec needs for this protocol"
    protocol, _, rest = place.partition("://")
    if "://" in rest or not rest:
        raise UsageError("this is no URL of a folder", where=place, hint="PROTOCOL://BUCKET/FOLDER")
    try:
        from fsspec.core import url_to_fs

        # Names may hold `::`, which would be taken for a chain of file systems.
        return url_to_fs(f"{protocol}://{rest.partition('/')[0]}")[0]
    except ImportError as error:
        raise UsageError(f"a package is missing for `{protocol}://`: {error}", where=place, hint=hint) from None
    except ValueError as error:
        hint = "s3://, gs://, hf:// and all others that fsspec knows are read"
        raise UsageError(f"nobody knows `{protocol}://`: {error}", where=place, hint=hint) from None
