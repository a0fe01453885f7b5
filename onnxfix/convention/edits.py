"""What users ask for besides a convention, ports renamed and cast, held against the ports that there are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from shlex import quote
from typing import TYPE_CHECKING

from onnxfix.convention.signature import Port
from onnxfix.errors import PlanError

if TYPE_CHECKING:
    from onnxfix.convention.plan import Edits

_WIDER: Mapping[str, str] = {
    "bool": "int8 int16 int32 int64 uint8 float16 float32 float64 bfloat16",
    "int8": "int16 int32 int64 float16 float32 float64 bfloat16",
    "uint8": "int16 int32 int64 float16 float32 float64 bfloat16",
    "int16": "int32 int64 float32 float64",
    "int32": "int64 float64",
    "int64": "",
    "float16": "float32 float64",
    "bfloat16": "float32 float64",
    "float32": "float64",
    "float64": "",
}
"""For each element type those that hold all of its values."""
CASTS = tuple(_WIDER)
_OTHERWISE = "let the target call its ports otherwise: --to with a sentence, or with a TOML file of your own"


def is_wider(dtype: str, other: str) -> bool:
    """Whether an element type holds all values of another one.

    >>> is_wider("int64", "int32"), is_wider("float32", "int64")
    (True, False)
    """
    return dtype in (other, *_WIDER.get(other, "").split())


def require_ports(edits: Edits, ports: Sequence[Port], caches: Collection[str]) -> None:
    """Checks that what is to be renamed or cast is there.

    Args:
        edits: What the user asks for.
        ports: The ports after the conversion.
        caches: The names of those of them that are caches.

    Raises:
        PlanError: No port has such a name, or it cannot be cast.
    """
    dtypes = {port.name: port.dtype for port in ports}
    for option, keys in (("--rename", edits.rename), ("--cast", edits.cast)):
        for key, value in keys.items():
            if key not in dtypes:
                hint = f"the ports are {', '.join(dtypes)}"
                raise PlanError(f"no port is called `{key}`", where=f"{option} {key}={value}", hint=hint)
    for name, dtype in edits.cast.items():
        where = f"--cast {name}={dtype}"
        if dtype not in CASTS:
            raise PlanError("this element type is not known", where=where, hint=f"known are {', '.join(CASTS)}")
        if name in caches:
            raise PlanError("this port is a cache", where=where, hint="only ports that are no cache can be cast")
        if dtypes[name] not in CASTS:
            raise PlanError(f"this port holds {dtypes[name]}, which cannot be cast", where=where)


def cast_notes(edits: Edits, ports: Sequence[Port]) -> list[str]:
    """Returns which casts do not keep every value."""
    return [
        f"`{port.name}` becomes {dtype}, which does not hold every {port.dtype}"
        for port in ports
        if not is_wider(dtype := edits.cast.get(port.name, port.dtype), port.dtype)
    ]


def cast_ports(ports: Sequence[Port], casts: Mapping[str, str]) -> tuple[Port, ...]:
    """Returns the ports with their new element types, where any is known for their name."""
    return tuple(replace(port, dtype=casts.get(port.name, port.dtype)) for port in ports)


def edited_ports(ports: Sequence[Port], edits: Edits) -> tuple[Port, ...]:
    """Returns the ports under their new names and with their new element types."""
    return tuple(replace(port, name=edits.rename.get(port.name, port.name)) for port in cast_ports(ports, edits.cast))


def require_names(
    inputs: Sequence[str], outputs: Sequence[str], both: Collection[str], rename: Mapping[str, str]
) -> None:
    """Checks that every port has a name of its own.

    Args:
        inputs: The names of the inputs after the conversion.
        outputs: The names of the outputs.
        both: Names that an input and an output share already; they may go on.
        rename: What the user asked for.

    Raises:
        PlanError: A port has no name, or two ports have the same.
    """
    seen: set[str] = set()
    for name in (*inputs, *(name for name in outputs if name not in both)):
        if not name:
            raise PlanError("a port needs a name", where="--rename")
        if name in seen:
            keys = [key for key, new in rename.items() if new == name]
            hint = f"choose another name for it: {rename_option(keys[-1])}" if keys else _OTHERWISE
            raise PlanError(f"two ports would be called `{name}`", hint=hint)
        seen.add(name)


def rename_option(key: str) -> str:
    """Returns what a user types to call a port otherwise."""
    return f"--rename {quote(f'{key}=NAME')}"
