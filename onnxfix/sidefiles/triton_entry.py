"""What one entry of `input`, `output` or `state` in a `config.pbtxt` says, and how it is written for another port."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxfix.convention.signature import Port
from onnxfix.errors import SideFileError
from onnxfix.sidefiles.pbtxt import Message, quoted
from onnxfix.sidefiles.pbtxt_edit import Edit, applied, lead_of, numbers_edits, removal, scalar_edit

_TYPES = {
    "bool": "TYPE_BOOL", "uint8": "TYPE_UINT8", "uint16": "TYPE_UINT16", "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64", "int8": "TYPE_INT8", "int16": "TYPE_INT16", "int32": "TYPE_INT32", "int64": "TYPE_INT64",
    "float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64", "bfloat16": "TYPE_BF16",
    "string": "TYPE_STRING",
}  # fmt: skip
"""Triton's names of element types, by numpy's."""


@dataclass(frozen=True)
class Kind:
    """A list of the file.

    Attributes:
        name: The field.
        keys: The fields of an entry that name a port; the first one is the port whose dims it tells.
    """

    name: str
    keys: tuple[str, ...]

    def is_input(self, key: str) -> bool:
        """Whether a field names an input of the model."""
        return key == "input_name" or (key == "name" and self.name == "input")


INPUT, OUTPUT = Kind("input", ("name",)), Kind("output", ("name",))
STATE = Kind("state", ("input_name", "output_name"))
KINDS = (INPUT, OUTPUT, STATE)


@dataclass(frozen=True)
class Entry:
    """An entry as it is written.

    Attributes:
        message: Where it stands.
        names: The ports that it names, by field.
    """

    message: Message
    names: Mapping[str, str]

    @classmethod
    def read(cls, message: Message, kind: Kind) -> Entry:
        """Reads an entry.

        Raises:
            SideFileError: It names no port.
        """
        names = {}
        for key in kind.keys:
            name = message.text(key)
            if not name:
                raise SideFileError(f"`{key}` is missing in this `{kind.name}`", where=message.where)
            names[key] = name
        return cls(message, names)

    @property
    def port(self) -> str:
        """The port whose dims it tells."""
        return next(iter(self.names.values()))

    @property
    def shape(self) -> tuple[int, ...]:
        """The dims that the model sees, less the batch where Triton makes one; -1 for any size."""
        reshaped = self.message.messages("reshape")
        return reshaped[0].numbers("shape") if reshaped else self.message.numbers("dims")

    def initial(self) -> Message | None:
        """Returns what a sequence begins with, where that is said."""
        found = self.message.messages("initial_state")
        return found[0] if found else None


def sizes_of(port: Port, shape: Sequence[int], is_batched: bool, where: str) -> dict[str, int]:
    """Returns the size that an entry gives to each symbolic dim of its port; -1 for any.

    Raises:
        SideFileError: The entry has another rank.
    """
    if port.dims is None:
        return {}
    dims = port.dims[1:] if is_batched else port.dims
    if len(dims) != len(shape):
        batch = " besides the batch" if is_batched else ""
        message = f"`{port.name}` has {len(shape)} dims here, the model's has {len(dims)}{batch}"
        raise SideFileError(message, where=where, hint="Correct the file, or leave --write-config out.")
    return {dim: size for dim, size in zip(dims, shape, strict=True) if isinstance(dim, str)}


def shape_of(port: Port, sizes: Mapping[str, int], is_batched: bool, where: str) -> tuple[int, ...]:
    """Returns the dims that Triton is told of a port; -1 for any size.

    Raises:
        SideFileError: The port has no dims, or no batch to leave out.
    """
    if port.dims is None or (is_batched and not port.dims):
        why = "is a scalar, and max_batch_size is not 0" if port.dims == () else "has no rank in the model"
        raise SideFileError(f"Triton cannot be told the dims of `{port.name}`: it {why}", where=where)
    dims = port.dims[1:] if is_batched else port.dims
    return tuple(dim if isinstance(dim, int) else sizes.get(dim, -1) if dim is not None else -1 for dim in dims)


def written(text: str, entry: Entry, names: Mapping[str, str], dtype: str, shapes: Sequence[tuple[int, ...]]) -> str:
    """Returns an entry as it is written for other ports.

    Args:
        text: The text that it stands in.
        entry: The entry.
        names: The new names, by field.
        dtype: numpy's name of the element type.
        shapes: The dims that the model sees and, for a state that says how it begins, those that it has at first.
    """
    message = entry.message
    edits = [edit for key, name in names.items() if name != entry.names[key] for edit in _name(message, key, name)]
    edits += _type(message, dtype)
    if shapes and shapes[0] != entry.shape:
        edits += _dims(text, message, shapes[0])
    initial = entry.initial()
    if initial is not None:
        edits += _type(initial, dtype)
        edits += numbers_edits(text, initial, "dims", shapes[1]) if len(shapes) > 1 else []
    return applied(text, edits, message.start, message.stop)


def _name(message: Message, key: str, name: str) -> list[Edit]:
    return scalar_edit(message, key, quoted(name))


def _type(message: Message, dtype: str) -> list[Edit]:
    known = _TYPES.get(dtype)
    return scalar_edit(message, "data_type", known) if known and message.text("data_type") != known else []


def _dims(text: str, message: Message, shape: tuple[int, ...]) -> list[Edit]:
    """Returns the edits for other dims; a scalar is told to Triton as `[ 1 ]` that is reshaped."""
    edits = numbers_edits(text, message, "dims", shape or (1,))
    reshapes = message.named("reshape")
    if shape:
        return edits + [removal(text, field) for field in reshapes]
    if reshapes:
        return edits + [edit for one in message.messages("reshape") for edit in numbers_edits(text, one, "shape", ())]
    place = message.named("dims")[-1].separator
    return [*edits, Edit(place, place, f"{lead_of(text, message.named('dims')[-1].start)}reshape {{ shape: [ ] }}")]
