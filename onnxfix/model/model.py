"""A model file: read without its weights, written whole or not at all.

Data files are never read: a model that is written into its own folder shares them, elsewhere they are copied.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

from onnxfix.convention.signature import Signature
from onnxfix.errors import DataFileError, ModelWriteError, RewriteError
from onnxfix.model import atomic, external, reading
from onnxfix.model.complaint import Complaint, complaints_of
from onnxfix.model.encoding import encoded
from onnxfix.model.ports import port_of
from onnxfix.model.skeleton import Skeleton, make_skeleton
from onnxfix.model.staged import Staged

_RECODED_LIMIT = 1 << 26
"""Bytes of a model file up to which an untouched model is written with the very bytes that were read.

Protobuf allows many encodings of one message (order of fields, padded numbers), of which only one is ever written.
Almost every file is in that one; to find out whether a file is takes another encoding.
"""


class Model:
    """An ONNX model whose weights nobody looks at.

    Attributes:
        proto: The model as the file has it; external data is not loaded.
        path: The file it came from; None for a model that was made in memory.
        folder: The folder of its data files; None where nobody said.
        source_sha256: The digest of the file's bytes; None for a model that was made in memory.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        *,
        path: Path | None = None,
        folder: Path | None = None,
        source_sha256: str | None = None,
    ) -> None:
        self.proto = proto
        self.path = path
        self.folder = folder
        self.source_sha256 = source_sha256
        self._recoded_sha256: str | None = None

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """Reads a model, and checks that its data files are there, but does not read them.

        Raises:
            ModelReadError: The file is missing, unreadable, truncated, or no ONNX model.
            DataFileError: A data file is missing, too short, or outside the model's folder.
        """
        path = Path(path)
        content = reading.read(path)
        proto = reading.parse(content, path)
        reading.require_model(proto, path)
        digest = hashlib.sha256(content).hexdigest()
        model = cls(proto, path=path, folder=path.parent, source_sha256=digest)
        if len(content) <= _RECODED_LIMIT:
            recoded = hashlib.sha256(proto.SerializeToString()).hexdigest()
            model._recoded_sha256 = None if recoded == digest else recoded
        # Weights that the model file itself holds would otherwise lie in memory twice from here on.
        del content
        model.require_data_files()
        return model

    @classmethod
    def from_proto(cls, proto: onnx.ModelProto, folder: str | Path | None = None) -> Model:
        """Takes a model from memory; the message is taken over, not copied.

        Args:
            proto: The model.
            folder: Where its data files lie, if it has any.

        Raises:
            ModelReadError: The message is no complete model.
            DataFileError: A data file is missing, too short, or outside `folder`, or `folder` is not given.
        """
        reading.require_model(proto, None)
        model = cls(proto, folder=None if folder is None else Path(folder))
        model.require_data_files()
        return model

    @property
    def name(self) -> str:
        """The path, for messages; `model` where there is none."""
        return str(self.path) if self.path else "model"

    @property
    def opset(self) -> int:
        """The version of the default operator set; 1 where the file names none."""
        versions = (entry.version for entry in self.proto.opset_import if entry.domain in ("", "ai.onnx"))
        return next(versions, 1)

    @property
    def ir_version(self) -> int:
        """The version of the file format."""
        return self.proto.ir_version

    def signature(self) -> Signature:
        """Returns the model's ports and metadata. An input that has an initializer is no port: it has a value."""
        graph = self.proto.graph
        valued = {tensor.name for tensor in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
        return Signature(
            inputs=tuple(port_of(value) for value in graph.input if value.name not in valued),
            outputs=tuple(port_of(value) for value in graph.output),
            metadata=self.metadata,
        )

    @property
    def metadata(self) -> Mapping[str, str]:
        """A copy of `metadata_props`, in the file's order; what is no text stays in the file, and is not in it."""
        found = {entry.key: entry.value for entry in self.proto.metadata_props}
        # Protobuf gives a string that is no UTF-8 as bytes.
        return {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, str)}

    def set_metadata(self, key: str, value: str) -> None:
        """Sets one entry of `metadata_props`, in place where it exists, else at the end."""
        known = [entry for entry in self.proto.metadata_props if entry.key == key]
        entry = known[-1] if known else self.proto.metadata_props.add(key=key)
        entry.value = value

    def remove_metadata(self, key: str) -> None:
        """Removes one entry of `metadata_props`, if it exists; the others keep their order."""
        entries = self.proto.metadata_props
        for index in reversed([i for i, entry in enumerate(entries) if entry.key == key]):
            del entries[index]

    def external_files(self) -> tuple[tuple[str, int], ...]:
        """Returns each data file, relative to the model's folder, with the bytes that tensors use in it."""
        return external.files_used(external.external_tensors(self.proto))

    def require_data_files(self) -> None:
        """Checks that every external tensor lies in a file of the model's folder.

        Raises:
            DataFileError: It does not; the message names tensor and file.
        """
        with _located(self.name):
            tensors = list(external.external_tensors(self.proto))
        if not tensors:
            return
        if self.folder is None:
            raise DataFileError(
                f"tensor `{tensors[0].name}` lies in the data file `{tensors[0].location}`, but in which folder is "
                "not known",
                where=self.name,
                hint="Pass the folder of the data files along with the model.",
            )
        external.require_data_files(tensors, self.folder, self.name)

    def skeleton(self) -> Skeleton:
        """Copies the model without its weights."""
        return make_skeleton(self.proto)

    def complaints(self) -> tuple[Complaint, ...]:
        """Asks onnx's checker about the model without its weights; nothing if it has nothing to say."""
        return complaints_of(self.skeleton().proto)

    def require_no_new_complaint(self, source: Callable[[], Model]) -> None:
        """Checks that onnx's checker objects to nothing that it did not object to before.

        ONNX Runtime runs models that the checker rejects, so its verdict alone says little.

        Args:
            source: Returns the model that this one was made from; it is asked for only if there is a complaint.

        Raises:
            RewriteError: There is a complaint of a new kind.
            ModelError: The source cannot be read any more.
        """
        complaints = self.complaints()
        before = source().complaints() if complaints else ()
        known = {complaint.kind for complaint in before}
        new = next((complaint for complaint in complaints if complaint.kind not in known), None)
        if new is None:
            return
        hint = "The source has no such fault, so this is one of onnxfix: please report it."
        if before:
            hint = f"The source is not valid either, for another reason: {before[0].text}. Mend that first."
        raise RewriteError(f"the rewritten graph is not valid: {new.text}", where=self.name, hint=hint)

    def save(self, path: str | Path) -> None:
        """Writes the model and what it needs of its data files; see `stage`.

        Raises:
            DataFileError: A data file has vanished since the model was loaded.
            ModelWriteError: The destination cannot be written. Nothing new is visible there.
        """
        with self.stage(path) as staged:
            staged.commit()

    def stage(self, path: str | Path) -> Staged:
        """Writes the model under a temporary name beside `path`.

        Data files are shared where `path` lies in the model's own folder, else copied, under their own names. Where
        another file bears such a name, the copy's name is prefixed with that of the new model.

        Raises:
            DataFileError: A data file has vanished since the model was loaded.
            ModelWriteError: The destination cannot be written. Everything that was written is removed.
        """
        destination = Path(path)
        self.require_data_files()
        try:
            self._require_writable(destination)
        except (OSError, RuntimeError) as error:  # a loop of links: RuntimeError before Python 3.13
            reason = getattr(error, "strerror", None) or "a loop of links"
            raise ModelWriteError(f"the destination cannot be written: {reason}", where=str(path)) from None
        with _discarded_on_error(destination) as held:
            staged = held.enter_context(Staged(destination, self.path))
            renamed = self._stage_data(staged)
            with _relocated(self.proto, renamed):
                staged.write(self._written())
        return staged

    def _require_writable(self, destination: Path) -> None:
        where = str(destination)
        try:
            mode = destination.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            mode = stat.S_IFREG
        except (OSError, ValueError) as error:  # a loop of links, a name that is too long or holds a NUL
            reason = error.strerror if isinstance(error, OSError) else error
            raise ModelWriteError(f"the model cannot be written: {reason}", where=where) from None
        if stat.S_ISDIR(mode):
            raise ModelWriteError("the destination is a folder", where=where, hint="Name a file in it.")
        if not stat.S_ISREG(mode):
            raise ModelWriteError("the destination is no regular file", where=where, hint="Name a file.")
        if not destination.parent.is_dir():
            raise ModelWriteError(
                f"there is no folder `{destination.parent}`", where=where, hint="Make it, or correct the path."
            )
        data = {(self.folder / location).resolve() for location, _ in self.external_files()} if self.folder else set()
        if destination.resolve() in data:
            raise ModelWriteError(
                "the destination is a data file of the model", where=where, hint="Choose another name."
            )

    def _stage_data(self, staged: Staged) -> dict[str, str]:
        """Brings the data files to the destination, and returns those that got another name."""
        locations = [location for location, _ in self.external_files()]
        if not locations or self.folder is None or self.folder.samefile(staged.destination.parent):
            return {}
        renamed = {}
        for location in locations:
            source = self.folder / location
            chosen = _free_location(source, location, staged.destination)
            if not (staged.destination.parent / chosen).exists():
                staged.add_data_file(source, chosen)
            if chosen != location:
                renamed[location] = chosen
        return renamed

    def _written(self) -> Iterable[bytes]:
        """Returns the bytes of the model's file, in pieces."""
        if self._recoded_sha256 is None:
            return encoded(self.proto)
        content = self.proto.SerializeToString()
        is_untouched = hashlib.sha256(content).hexdigest() == self._recoded_sha256
        return [(self._source_bytes() if is_untouched else None) or content]

    def _source_bytes(self) -> bytes | None:
        """Returns the bytes that the model was read from; None if they are not there any more."""
        if self.path is None:
            return None
        with contextlib.suppress(OSError):
            source = self.path.read_bytes()
            return source if hashlib.sha256(source).hexdigest() == self.source_sha256 else None
        return None


def _free_location(source: Path, location: str, destination: Path) -> str:
    """Returns where the data file goes: its own name, or one prefixed with the new model's.

    Raises:
        ModelWriteError: Other files bear both names.
    """
    folder, own = destination.parent, PurePosixPath(location)
    for candidate in (own, own.with_name(f"{destination.stem}.{own.name}")):
        target = folder / candidate
        if target.resolve() == destination.resolve():
            continue
        if not target.exists() and not target.is_symlink():
            return str(candidate)
        if _is_own_file(target) and atomic.has_same_content(source, target):
            return str(candidate)
    raise ModelWriteError(
        f"the data file `{location}` cannot be copied: another file of that name stands in `{folder}`",
        where=str(destination),
        hint="Choose another folder, or move that file away; it may belong to another model.",
    )


def _is_own_file(path: Path) -> bool:
    """Says whether a runtime would take the file as a data file: no link of any kind."""
    return path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1


@contextlib.contextmanager
def _relocated(proto: onnx.ModelProto, renamed: Mapping[str, str]) -> Iterator[None]:
    """Lets the model name other data files, for as long as the block runs."""
    changed: list[tuple[onnx.StringStringEntryProto, str]] = []
    if renamed:
        for tensor in external.external_tensors(proto):
            for entry in tensor.proto.external_data:
                if entry.key == "location" and entry.value in renamed:
                    changed.append((entry, entry.value))
                    entry.value = renamed[entry.value]
    try:
        yield
    finally:
        for entry, old in changed:
            entry.value = old


@contextlib.contextmanager
def _discarded_on_error(destination: Path) -> Iterator[contextlib.ExitStack]:
    """Closes what the block has entered where the block fails; else it stays open."""
    where = str(destination)
    with contextlib.ExitStack() as held:
        try:
            yield held
        except EncodeError as error:
            raise ModelWriteError(
                "the model is too large: a model file cannot be larger than 2 GiB",
                where=where,
                hint="Move its weights into a data file first (onnx.external_data_helper).",
            ) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise ModelWriteError(
                    "there is not enough space to write the model",
                    where=where,
                    hint="Free some space, or choose another disk.",
                ) from error
            raise ModelWriteError(f"the model cannot be written: {error.strerror or error}", where=where) from error
        held.pop_all()


@contextlib.contextmanager
def _located(where: str) -> Iterator[None]:
    """Adds the model's name to errors from below, which do not know it."""
    try:
        yield
    except DataFileError as error:
        error.where = error.where or where
        raise
