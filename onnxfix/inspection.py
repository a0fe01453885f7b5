"""What a model file is: its ports, what they carry from call to call, and what stands around them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from onnxfix.convention.signature import Dim, Port, Signature
from onnxfix.request import bind_model, open_model, require_known_sizes

if TYPE_CHECKING:
    from onnxfix.convention.binding import Binding, BoundTensor
    from onnxfix.convention.convention import Convention
    from onnxfix.convention.detect import Detection
    from onnxfix.model.model import Model
    from onnxfix.report import Json
    from onnxfix.request import Source, Speech


@dataclass(frozen=True)
class PortFacts:
    """One port and what is known of it.

    Attributes:
        port: The port.
        is_input: Whether it is an input.
        cache: The cache that it holds a part of; empty if it is no state.
        part: Which part, in words (`layer 0, key`).
        layout: Its layout; empty where it is not known.
        sizes: The sizes of the layout's axes.
        partner: For a state the port that it feeds, or that feeds it; empty for a cache that is only read.
        role: What a port that is no state is for; empty where it is not known.
    """

    port: Port
    is_input: bool
    cache: str
    part: str
    layout: str
    sizes: Mapping[str, Dim]
    partner: str
    role: str

    @property
    def is_state(self) -> bool:
        """Whether the port carries a cache."""
        return bool(self.cache)

    def to_json(self) -> dict[str, Json]:
        """Returns the facts as plain JSON values."""
        from onnxfix.report import port_to_json

        return {
            **port_to_json(self.port),
            "state": self.is_state,
            "cache": self.cache or None,
            "part": self.part or None,
            "layout": self.layout or None,
            "sizes": dict(self.sizes),
            "feeds" if not self.is_input else "fed_by": self.partner or None,
            "role": self.role or None,
        }


@dataclass(frozen=True)
class CandidateFacts:
    """A convention that fits, what speaks for it and (beginning with `but`) against it, and what reads it the same."""

    name: str
    ports: int
    score: int
    reasons: tuple[str, ...]
    twins: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        """Returns the facts as plain JSON values."""
        return {
            "name": self.name,
            "ports": self.ports,
            "score": self.score,
            "reasons": list(self.reasons),
            "twins": list(self.twins),
        }


@dataclass(frozen=True)
class DataFile:
    """A file with weights.

    Attributes:
        location: Its path, relative to the model's folder.
        used: How many of its bytes tensors use.
        size: How many bytes it has; None if the model has no folder.
    """

    location: str
    used: int
    size: int | None

    def to_json(self) -> dict[str, Json]:
        """Returns the facts as plain JSON values."""
        return {"location": self.location, "used_bytes": self.used, "bytes": self.size}


@dataclass(frozen=True)
class RefusedFacts:
    """A convention that onnxfix recognises only to refuse it: its name, why it is refused, and what would help."""

    name: str
    reason: str
    needs: str

    def to_json(self) -> dict[str, Json]:
        """Returns the facts as plain JSON values."""
        return {"name": self.name, "reason": self.reason, "needs": self.needs}


@dataclass(frozen=True)
class Inspection:
    """All that onnxfix sees in a model.

    Attributes:
        path: The file; empty for a model in memory.
        convention: The convention that the model speaks; None if it is none, or several are equally good.
        successor: The convention that replaced it upstream; None if there is none.
        ties: The conventions that fit equally well, where none is best.
        candidates: Conventions that fit, best first.
        rejections: Conventions that nearly fit: name and reason.
        refused: The convention that it speaks, where onnxfix recognises that only to refuse it; else None.
        ports: Inputs, then outputs, in order.
        bytes: The size of the file, without data files.
        ir_version: The version of the file format.
        opsets: Operator sets by domain; the default one is `ai.onnx`.
        producer: Name and version of what made the file.
        metadata: `metadata_props`.
        nodes: The nodes of the main graph.
        functions: The functions that the file brings along.
        parameters: The number of weights in initializers.
        parameter_bytes: How many bytes these take.
        data_files: The files that hold weights.
    """

    path: str
    convention: str | None
    successor: str | None
    ties: tuple[str, ...]
    candidates: tuple[CandidateFacts, ...]
    rejections: tuple[tuple[str, str], ...]
    refused: RefusedFacts | None
    ports: tuple[PortFacts, ...]
    bytes: int
    ir_version: int
    opsets: Mapping[str, int]
    producer: str
    metadata: Mapping[str, str]
    nodes: int
    functions: int
    parameters: int
    parameter_bytes: int
    data_files: tuple[DataFile, ...]

    def to_json(self) -> dict[str, Json]:
        """Returns the facts as plain JSON values."""
        return {
            "path": self.path,
            "convention": self.convention,
            "successor": self.successor,
            "ties": list(self.ties),
            "candidates": [one.to_json() for one in self.candidates],
            "rejections": [{"name": name, "reason": reason} for name, reason in self.rejections],
            "refused": None if self.refused is None else self.refused.to_json(),
            "inputs": [one.to_json() for one in self.ports if one.is_input],
            "outputs": [one.to_json() for one in self.ports if not one.is_input],
            "bytes": self.bytes,
            "ir_version": self.ir_version,
            "opsets": dict(self.opsets),
            "producer": self.producer,
            "metadata": dict(self.metadata),
            "nodes": self.nodes,
            "functions": self.functions,
            "parameters": self.parameters,
            "parameter_bytes": self.parameter_bytes,
            "data_files": [one.to_json() for one in self.data_files],
        }


def inspect(source: Source, *, from_: Speech | None = None, sizes: Mapping[str, int] | None = None) -> Inspection:
    """Looks at a model without reading its weights.

    Args:
        source: A file, or a model in memory.
        from_: The convention that it speaks, as in `convert`; None: it is detected, and there may be none.
        sizes: Sizes that the model does not tell, as in `convert`.

    Raises:
        ModelError: The file cannot be read, or a data file is missing.
        DetectError: The model does not speak the convention in `from_`.
        UsageError: `from_` cannot be understood.
    """
    from onnxfix.convention.detect import Detection, detect

    model = open_model(source)
    signature = model.signature()
    if from_ is None:
        found = detect(signature, sizes)
        binding = None if found.best is None else found.best.binding
        if binding is not None:
            require_known_sizes(binding)
    else:
        binding = bind_model(signature, from_=from_, sizes=sizes)
        found = Detection((), ())
    return _inspection(model, signature, binding, found)


def _inspection(model: Model, signature: Signature, binding: Binding | None, found: Detection) -> Inspection:
    proto = model.proto
    parameters, parameter_bytes = _weights(model)
    return Inspection(
        path=str(model.path or ""),
        convention=None if binding is None else str(binding.convention),
        successor=None if binding is None else binding.convention.successor,
        ties=_ties(found),
        candidates=tuple(
            CandidateFacts(one.name, one.ports, one.score, one.reasons, one.twins) for one in found.candidates
        ),
        rejections=tuple((one.name, one.reason) for one in found.rejections),
        refused=None if found.refused is None else _refused(found.refused),
        ports=(
            *_facts(signature.inputs, binding, is_input=True),
            *_facts(signature.outputs, binding, is_input=False),
        ),
        bytes=model.path.stat().st_size if model.path else proto.ByteSize(),
        ir_version=model.ir_version,
        opsets={entry.domain or "ai.onnx": entry.version for entry in proto.opset_import},
        producer=" ".join(text for text in (proto.producer_name, proto.producer_version) if text),
        metadata=model.metadata,
        nodes=len(proto.graph.node),
        functions=len(proto.functions),
        parameters=parameters,
        parameter_bytes=parameter_bytes,
        data_files=_data_files(model),
    )


def _refused(convention: Convention) -> RefusedFacts:
    return RefusedFacts(convention.name, convention.refused, convention.needs)


def _ties(found: Detection) -> tuple[str, ...]:
    if found.best is not None or not found.candidates:
        return ()
    return tuple(one.name for one in found.candidates if one.rank == found.candidates[0].rank)


def _facts(ports: Iterable[Port], binding: Binding | None, *, is_input: bool) -> list[PortFacts]:
    if binding is None:
        return [PortFacts(port, is_input, "", "", "", {}, "", "") for port in ports]
    caches = {}
    for cache in binding.caches:
        for tensor in cache.past if is_input else cache.present:
            caches[tensor.port.name] = (cache.spec.name, tensor)
    partners = binding.pairs if is_input else {present: past for past, present in binding.pairs.items()}
    roles = binding.inputs if is_input else binding.outputs
    rows = []
    for port in ports:
        if port.name in caches:
            name, tensor = caches[port.name]
            partner = partners.get(port.name, "")
            rows.append(
                PortFacts(port, is_input, name, _part(tensor), str(tensor.spec.layout), tensor.sizes, partner, "")
            )
        elif port.name in roles:
            spec = roles[port.name]
            rows.append(PortFacts(port, is_input, "", "", str(spec.layout), {}, "", spec.role))
        else:
            rows.append(PortFacts(port, is_input, "", "", "", {}, "", ""))
    return rows


def _part(tensor: BoundTensor) -> str:
    from onnxfix.convention.template import LABELS, label_text

    words = []
    for axis, label in tensor.labels.items():
        text = label_text(axis, label)
        words.append(text if axis in LABELS else f"{axis} {text}")
    return ", ".join(words)


def _weights(model: Model) -> tuple[int, int]:
    """Returns the number of weights in initializers and their bytes, from their types and dims alone."""
    from onnxfix.model.external import tensor_bytes

    initializers = model.proto.graph.initializer
    return (
        sum(prod(tensor.dims) for tensor in initializers),
        sum(tensor_bytes(tensor) or 0 for tensor in initializers),
    )


def _data_files(model: Model) -> tuple[DataFile, ...]:
    folder = model.folder
    return tuple(
        DataFile(location, used, (folder / location).stat().st_size if folder else None)
        for location, used in model.external_files()
    )
