"""What onnx's checker holds against a model, so that a result can be held against its source.

ONNX Runtime runs models that the checker rejects, and the checker stops at the first fault. So what it says of the
source counts for the result as well, but nothing else does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx

from onnxfix.model.external import graphs_of
from onnxfix.model.scopes import all_names

_VEIL = "onnxfix.veil"
"""A domain whose operators nobody knows: the checker has nothing to say of them."""
_CHECKED = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training")
_PREFIX = "[ShapeInferenceError] Inference error(s): "
_CONSEQUENCE = re.compile(
    r"expected to have type but instead is null|Element type of input \d+ unknown|Invalid tensor data type 0"
)
"""What is not known says nothing against a node: the cause lies before it."""
_WORD = re.compile(r"[^\s'\"(),]+")


@dataclass(frozen=True)
class Complaint:
    """One thing that is held against a model.

    Attributes:
        text: The checker's words.
        kind: The same with every name of the model left out: faults of one kind bear it, wherever they are.
    """

    text: str
    kind: str


def complaints_of(skeleton: onnx.ModelProto) -> tuple[Complaint, ...]:
    """Returns what is wrong with a model, which is changed: what its operators are to the checker is of no account.

    Args:
        skeleton: A copy of the model without its weights.
    """
    texts = [*_missing_imports(skeleton), *_unknown_operators(skeleton)]
    try:
        onnx.checker.check_model(skeleton, full_check=True)
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        texts += str(error).split("\n\n==> Context")[:1]
    except onnx.shape_inference.InferenceError as error:
        texts += str(error).split("\n")
    texts = [text.strip().removeprefix(_PREFIX) for text in texts if not _CONSEQUENCE.search(text)]
    if not any(texts):
        return ()
    names = all_names(skeleton) - {""}
    return tuple(Complaint(text, _kind(text, names)) for text in dict.fromkeys(texts) if text)


def _kind(text: str, names: set[str]) -> str:
    return _WORD.sub(lambda word: "*" if word[0].rstrip(":.") in names else word[0], text)


def _missing_imports(model: onnx.ModelProto) -> Iterator[str]:
    """Names the domains of operators that the model does not import, and imports them."""
    known = {entry.domain for entry in model.opset_import}
    known |= {"", "ai.onnx"} if known & {"", "ai.onnx"} else set()
    for domain in sorted({node.domain for node in _nodes(model.graph.node)} - known):
        yield f"No opset import for domain '{domain}'"
        model.opset_import.add(domain=domain, version=onnx.defs.onnx_opset_version() if domain in _CHECKED[:2] else 1)


def _unknown_operators(model: onnx.ModelProto) -> Iterator[str]:
    """Names the operators that onnx should know and does not, and veils them."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    own = {(function.domain, function.name) for function in model.functions}
    nodes = [node for node in _nodes(model.graph.node) if node.domain in _CHECKED]
    texts = {}
    for domain, op_type in {(node.domain, node.op_type) for node in nodes} - own:
        version = versions.get(domain, versions.get("", versions.get("ai.onnx", 1)))
        if not _is_known(op_type, domain, version):
            texts[domain, op_type] = f"No Op registered for {op_type} with domain_version of {version}"
    if not texts:
        return
    for node in nodes:
        if (node.domain, node.op_type) in texts:
            node.domain = _VEIL
    model.opset_import.add(domain=_VEIL, version=1)
    yield from sorted(set(texts.values()))


def _is_known(op_type: str, domain: str, version: int) -> bool:
    domain = "" if domain == "ai.onnx" else domain
    try:
        onnx.defs.get_schema(op_type, max_inclusive_version=version, domain=domain)
    except onnx.defs.SchemaError:
        return False
    return True


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yields nodes and those in their nested graphs."""
    for node in nodes:
        yield node
        for graph in graphs_of(node):
            yield from _nodes(graph.node)
