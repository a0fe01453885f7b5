"""What a trace says of the run that it holds: one JSON object.

All but the first two keys may be absent; a run recorded from PyTorch needs no more.

```
format       "onnxfix trace 1"
convention   which ports are caches: a name of the library, a list of sentences, or a TOML text
sizes        {"head": 4}: sizes that the ports do not tell, as `--size` takes them
inputs       [{"name": "x", "dtype": "float32", "dims": [7, "T", null]}], in order; dims null where no rank is declared
outputs      the same
metadata     {"chunk_size": "16"}: the model's metadata_props
model        {"name": "model.onnx", "sha256": "..."}: the file
seed         of what was fed
fed          {"x": "features"}: how each input was fed, in words
runs         [{"start": "full", "ticks": 8, "put_out": [0, 4, ...]}]: for each tick what was put out before it
notes        ["..."]: what is to be known of the run
loose        ["x"]: ports and symbols whose sizes are not what the model declares; `inputs` and `outputs` leave them out
evidence     {"observable": ["..."], "not_observable": ["..."], "vacuous": ""}: which parts of the state have a say, or
             why nothing is proven
checksum     of this header and of the other members of the file, see `trace.checksum`
```

Where ports or runs are absent, the arrays tell. Where evidence is absent, the model that is held against the trace is
asked for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from onnxfix.convention.binding import bind
from onnxfix.convention.convention import convention_from_sentences
from onnxfix.convention.load import library, parse_convention
from onnxfix.convention.signature import Dim, Port, Signature
from onnxfix.convention.writing import to_toml
from onnxfix.errors import OnnxfixError, UsageError
from onnxfix.verify.dtypes import DRIVABLE
from onnxfix.verify.options import EMPTY, FULL

if TYPE_CHECKING:
    from onnxfix.convention.binding import Binding
    from onnxfix.convention.convention import Convention

Table: TypeAlias = Mapping[str, object]
T = TypeVar("T")

FORMAT = "onnxfix trace 1"
_KEYS = (
    "format", "convention", "sizes", "inputs", "outputs", "metadata", "model", "seed", "fed", "runs", "notes",
    "loose", "evidence", "checksum",
)  # fmt: skip
_LARGEST = 2**63 - 1
_MOST_DIMS = 64


class TraceError(UsageError):
    """A file is no trace, or not the one that it should be: truncated, changed, of another model."""


@dataclass(frozen=True)
class RecordedRun:
    """One stretch of ticks from a first state on.

    Attributes:
        start: How long the caches were at first: `full` or `empty`.
        ticks: How many ticks.
        put_out: For each tick how many frames or tokens were put out before; empty where nobody counted.
    """

    start: str
    ticks: int
    put_out: tuple[int, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """How much a run proves.

    Attributes:
        observable: Parts of caches that change an output when they are disturbed.
        not_observable: Parts that do not.
        vacuous: Why nothing is proven; empty where something is.
    """

    observable: tuple[str, ...]
    not_observable: tuple[str, ...]
    vacuous: str = ""


@dataclass(frozen=True)
class Header:
    """What a trace says of its run.

    Attributes:
        convention: Which ports are caches.
        sizes: Sizes that the ports do not tell.
        signature: The ports of the model; empty where the arrays tell.
        runs: What was recorded; empty where the arrays tell.
        model: The name of the model's file; empty if it is not known.
        sha256: The digest of that file; empty if it is not known.
        seed: Of what was fed; None if it is not known.
        fed: How each input was fed, in words.
        notes: What is to be known of the run.
        loose: Ports and symbols whose sizes are not what the model declares; `signature` leaves them out.
        evidence: How much it proves; None where nobody looked.
        checksum: Of the header and the members of the file; empty where nobody took it.
    """

    convention: Convention
    sizes: Mapping[str, int] = field(default_factory=dict)
    signature: Signature = field(default_factory=lambda: Signature((), ()))
    runs: tuple[RecordedRun, ...] = ()
    model: str = ""
    sha256: str = ""
    seed: int | None = None
    fed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()
    evidence: Evidence | None = None
    checksum: str = ""

    def bind(self, where: str) -> Binding:
        """Returns the convention on the ports.

        Raises:
            TraceError: They do not fit.
        """
        try:
            return bind(self.convention, self.signature, self.sizes)
        except OnnxfixError as error:
            place = f"{where}: {error.where}" if error.where else where
            message = f"the ports of the trace do not speak `{self.convention}`: {error.message}"
            raise TraceError(message, where=place, hint=error.hint) from None

    def to_text(self) -> str:
        """Returns the header as JSON."""
        named = self.convention.name
        table: dict[str, object] = {
            "format": FORMAT,
            "convention": to_toml(self.convention) if named else list(self.convention.sentences),
            "sizes": dict(self.sizes),
            "inputs": [_port_table(port) for port in self.signature.inputs],
            "outputs": [_port_table(port) for port in self.signature.outputs],
            "metadata": dict(self.signature.metadata),
            "model": {"name": self.model, "sha256": self.sha256},
            "seed": self.seed,
            "fed": dict(self.fed),
            "runs": [{"start": run.start, "ticks": run.ticks, "put_out": list(run.put_out)} for run in self.runs],
            "notes": list(self.notes),
            "loose": list(self.loose),
            "checksum": self.checksum,
        }
        if self.evidence is not None:
            shown, hidden = list(self.evidence.observable), list(self.evidence.not_observable)
            table["evidence"] = {"observable": shown, "not_observable": hidden, "vacuous": self.evidence.vacuous}
        return json.dumps(table, ensure_ascii=False, indent=1)


def _port_table(port: Port) -> dict[str, object]:
    return {"name": port.name, "dtype": port.dtype, "dims": None if port.dims is None else list(port.dims)}


def parse_header(text: str, where: str) -> Header:
    """Reads a header.

    Args:
        text: The JSON text.
        where: The file, for errors.

    Raises:
        TraceError: It is no JSON, or not what this module's docstring says.
    """
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error) or "it nests too deeply"
        raise TraceError(f"the header is no JSON: {reason}", where=where) from None
    reader = _Reader(where)
    table = reader.table(table, "header")
    written = reader.optional(table, "format", reader.text, "")
    if written != FORMAT:
        if written.startswith(FORMAT.rsplit(" ", 1)[0]):
            raise TraceError(f"the trace is written in `{written}`", where=where, hint=f"this version reads `{FORMAT}`")
        raise reader.wrong("format", f'the text "{FORMAT}"')
    for key in table:
        if key not in _KEYS:
            raise TraceError("this key is not known", where=f"{where}: {key}", hint=f"known are {', '.join(_KEYS)}")
    model: Mapping[str, str] = reader.optional(table, "model", reader.texts, {})
    return Header(
        convention=reader.convention(table),
        sizes=reader.optional(table, "sizes", reader.sizes, {}),
        signature=Signature(
            reader.optional(table, "inputs", reader.ports, ()),
            reader.optional(table, "outputs", reader.ports, ()),
            reader.optional(table, "metadata", reader.texts, {}),
        ),
        runs=reader.optional(table, "runs", reader.runs, ()),
        model=model.get("name", ""),
        sha256=model.get("sha256", ""),
        seed=reader.optional(table, "seed", reader.number, None),
        fed=reader.optional(table, "fed", reader.texts, {}),
        notes=reader.optional(table, "notes", reader.lines, ()),
        loose=reader.optional(table, "loose", reader.lines, ()),
        evidence=reader.optional(table, "evidence", reader.evidence, None),
        checksum=reader.optional(table, "checksum", reader.text, ""),
    )


class _Reader:
    """Takes values out of JSON tables; every error names the file and the key."""

    def __init__(self, file: str) -> None:
        self._file = file

    def wrong(self, key: str, wanted: str) -> TraceError:
        return TraceError(f"{wanted} is expected here", where=f"{self._file}: {key}", hint="docs/trace.md has the keys")

    def optional(self, table: Table, key: str, read: Callable[[object, str], T], absent: T) -> T:
        value = table.get(key)
        return absent if value is None else read(value, key)

    def table(self, value: object, key: str) -> Table:
        if not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return value

    def items(self, value: object, key: str) -> list[object]:
        if not isinstance(value, list):
            raise self.wrong(key, "a list")
        return value

    def text(self, value: object, key: str) -> str:
        if not isinstance(value, str):
            raise self.wrong(key, "a text")
        return value

    def number(self, value: object, key: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
            raise self.wrong(key, "a whole number that is not negative")
        return value

    def lines(self, value: object, key: str) -> tuple[str, ...]:
        return tuple(self.text(one, key) for one in self.items(value, key))

    def texts(self, value: object, key: str) -> dict[str, str]:
        return {name: self.text(one, f"{key}.{name}") for name, one in self.table(value, key).items()}

    def sizes(self, value: object, key: str) -> dict[str, int]:
        return {name: self.number(one, f"{key}.{name}") for name, one in self.table(value, key).items()}

    def ports(self, value: object, key: str) -> tuple[Port, ...]:
        return tuple(self._port(one, f"{key}[{index}]") for index, one in enumerate(self.items(value, key)))

    def _port(self, value: object, key: str) -> Port:
        table = self.table(value, key)
        name, dtype = (self.text(table.get(one), f"{key}.{one}") for one in ("name", "dtype"))
        if dtype not in DRIVABLE:
            raise self.wrong(f"{key}.dtype", f"one of {', '.join(DRIVABLE)}")
        dims = table.get("dims")
        if dims is None:
            return Port(name, dtype, None)
        found = tuple(self._dim(one, f"{key}.dims") for one in self.items(dims, f"{key}.dims"))
        if len(found) > _MOST_DIMS:
            raise self.wrong(f"{key}.dims", f"a list of at most {_MOST_DIMS} dims")
        return Port(name, dtype, found)

    def _dim(self, value: object, key: str) -> Dim:
        return value if value is None or isinstance(value, str) else self.number(value, key)

    def runs(self, value: object, key: str) -> tuple[RecordedRun, ...]:
        found: list[RecordedRun] = []
        for index, one in enumerate(self.items(value, key)):
            path = f"{key}[{index}]"
            table = self.table(one, path)
            start = self.text(table.get("start"), f"{path}.start")
            if start not in (FULL, EMPTY) or start in [run.start for run in found]:
                raise self.wrong(f"{path}.start", f"`{FULL}` or `{EMPTY}`, each once,")
            counts = self.items(table.get("put_out", []), f"{path}.put_out")
            put_out = tuple(self.number(count, f"{path}.put_out") for count in counts)
            found.append(RecordedRun(start, self.number(table.get("ticks"), f"{path}.ticks"), put_out))
        return tuple(found)

    def evidence(self, value: object, key: str) -> Evidence:
        table = self.table(value, key)
        shown, hidden = (self.lines(table.get(one), f"{key}.{one}") for one in ("observable", "not_observable"))
        return Evidence(shown, hidden, self.optional(table, "vacuous", self.text, ""))

    def convention(self, table: Table) -> Convention:
        value = table.get("convention")
        where = f"{self._file}: convention"
        if isinstance(value, str) and value in library():
            return library()[value]
        if isinstance(value, str) and "[[cache]]" in value:
            return parse_convention(value, where=where)
        if isinstance(value, str) and ":" not in value:
            hint = f"known are {', '.join(library())}; or a list of sentences, or a TOML text"
            raise TraceError(f"no convention is called `{value}`", where=where, hint=hint)
        sentences = [value] if isinstance(value, str) else list(self.lines(value, "convention"))
        return convention_from_sentences(sentences, where=where)
