"""What is asked of which model: from names, files and sentences to a plan."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from onnxfix.errors import OnnxfixError, PlanError, UsageError

if TYPE_CHECKING:
    import onnx

    from onnxfix.convention.binding import Binding
    from onnxfix.convention.convention import Convention
    from onnxfix.convention.plan import Edits, Plan
    from onnxfix.convention.signature import Signature
    from onnxfix.model.model import Model

    Source: TypeAlias = str | Path | Model | onnx.ModelProto
    """A file, or a model in memory."""
    Speech: TypeAlias = str | Path | Convention | Sequence[str]
    """A convention by name, by TOML file or `genai_config.json`, as sentences (one a cache), or as such."""


def open_model(source: Source) -> Model:
    """Returns a model from a file or from memory, without its weights where these lie in data files.

    Raises:
        ModelError: The file cannot be read, or a data file is missing.
    """
    from onnxfix.model.model import Model

    if isinstance(source, Model):
        return source
    if isinstance(source, str | Path):
        return Model.load(source)
    return Model.from_proto(source)


def file_of(model: Model, source: Source, stack: contextlib.ExitStack) -> Path:
    """Returns a file with the model: its own, or a temporary one if it came from memory.

    Args:
        model: The model.
        source: What it was opened from.
        stack: Removes what is temporary.
    """
    if isinstance(source, str | Path):
        return Path(source)
    return stack.enter_context(model.stage(scratch(stack) / "model.onnx")).path


def scratch(stack: contextlib.ExitStack) -> Path:
    """Returns a new folder that goes with the stack."""
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxfix-")))


def plan_conversion(
    model: Model,
    *,
    to: Speech | None = None,
    from_: Speech | None = None,
    sizes: Mapping[str, int] | None = None,
    edits: Edits | None = None,
) -> Plan:
    """Decides what a conversion changes; nothing is changed yet.

    Args:
        model: The model.
        to: The convention to reach; None: the one that replaced the model's upstream.
        from_: The convention that the model speaks; None: it is detected.
        sizes: Sizes that the model does not tell, by axis, cache and axis, or symbolic dim.
        edits: Ports to rename or cast, and dims to set.

    Raises:
        UsageError: What is asked for cannot be understood, or there is no successor to convert to.
        DetectError: The model speaks no known convention or several, or not the one in `from_`.
        PlanError: The two conventions cannot be mapped onto each other for this model.
    """
    from onnxfix.convention.plan import Edits, make_plan

    edits = edits or Edits()
    asked = None if to is None else read_convention(to, option="--to")
    binding = bind_model(model.signature(), from_=from_, sizes=sizes)
    target = _successor(binding, edits) if asked is None else asked
    return make_plan(binding, target, edits)


def bind_model(signature: Signature, *, from_: Speech | None = None, sizes: Mapping[str, int] | None = None) -> Binding:
    """Returns the convention that a model speaks, bound to its ports.

    Raises:
        DetectError: The model speaks no known convention or several, or not the one in `from_`.
        UsageError: `from_` cannot be understood, or a size is given for something that the model does not have.
    """
    from onnxfix.convention.binding import bind
    from onnxfix.convention.detect import detect
    from onnxfix.convention.prefix import behind_prefix

    if from_ is None:
        binding = detect(signature, sizes).choose().binding
    else:
        convention = read_convention(from_, option="--from")
        prefixed = behind_prefix(convention, signature) if convention.name else None
        binding = bind(prefixed[0] if prefixed else convention, signature, sizes)
    require_known_sizes(binding)
    return binding


def conventions_of(signature: Signature, speech: Speech | None, *, sizes: Mapping[str, int]) -> tuple[Convention, ...]:
    """Returns the conventions that the result of a conversion may speak: more than one if they read it the same way.

    Args:
        signature: Its ports.
        speech: What the user says of it; None: it is detected.
        sizes: Sizes that the user gave of any model; those of others are none of its concern.

    Raises:
        DetectError: It speaks no known convention, or not the one that the user says.
        UsageError: What the user says cannot be understood.
    """
    from onnxfix.convention.binding import bind
    from onnxfix.convention.detect import detect

    if speech is not None:
        return (bind(read_convention(speech, option="--to"), signature, sizes).convention,)
    found = detect(signature, sizes)
    if not found.candidates:
        found.choose()
    return tuple(one.binding.convention for one in found.likely)


def read_convention(speech: Speech, *, option: str) -> Convention:
    """Returns the convention that a user means.

    Args:
        speech: A name of the library, a TOML file, a `genai_config.json`, one sentence or several, or a convention.
        option: Where the user said it, for errors.

    Raises:
        UsageError: It cannot be understood; a `LayoutError` points at the place.
        PlanError: It is a convention that onnxfix recognises only to refuse it.
    """
    convention = _read_convention(speech, option)
    if convention.refused:
        way, hint = ("to", "") if option == "--to" else ("from", convention.needs)
        raise PlanError(f"nothing is converted {way} `{convention}`: {convention.refused}", hint=hint)
    return convention


def _read_convention(speech: Speech, option: str) -> Convention:
    from onnxfix.convention.convention import Convention, convention_from_sentences

    if isinstance(speech, Convention):
        return speech
    if isinstance(speech, Path):
        return _load(speech)
    texts = [speech] if isinstance(speech, str) else list(speech)
    sentences = [text for text in texts if is_sentence(text)]
    if len(sentences) == len(texts) > 0:
        return convention_from_sentences(texts, where=option)
    if len(texts) == 1:
        return _load(texts[0])
    if not texts:
        raise UsageError("no convention is given", where=option, hint="a name, a TOML file, or sentences")
    name = next(text for text in texts if not is_sentence(text))
    if sentences:
        message = f"`{name}` is a convention, `{sentences[0]}` is a sentence: they cannot be mixed"
    else:
        message = f"two conventions are given, `{texts[0]}` and `{texts[1]}`"
    hint = f"{option} takes one name, or one file, or sentences, one for each cache"
    raise UsageError(message, where=option, hint=hint)


def is_sentence(text: str) -> bool:
    """Whether a text describes a cache (`PAST -> PRESENT: LAYOUT`) rather than naming a convention or a file."""
    return not text.endswith((".toml", ".json")) and (":" in text or "->" in text)


def _load(name: str | Path) -> Convention:
    """Returns a convention by name, from a TOML file, or from the file that GenAI reads."""
    if str(name).endswith(".json"):
        from onnxfix.sidefiles.genai_convention import convention_of

        return convention_of(Path(name))
    from onnxfix.convention.load import load_convention

    return load_convention(name)


def _successor(binding: Binding, edits: Edits) -> Convention | None:
    """Returns what to convert to where the user does not say: None for the edits alone, or for nothing.

    Raises:
        UsageError: The convention was replaced by no other, and replaced none.
    """
    from onnxfix.convention.load import library, load_convention

    convention = binding.convention
    if convention.successor is not None:
        return load_convention(convention.successor)
    is_newest = any(one.successor == convention.name for one in library().values())
    if is_newest or edits != type(edits)():
        return None
    choices = ", ".join(_reachable(binding)) or "none of the library"
    raise UsageError(
        f"the model speaks `{convention}`, which no convention has replaced: say what to convert it to",
        hint=f"--to NAME; this model can become {choices}",
    )


def _reachable(binding: Binding) -> list[str]:
    from onnxfix.convention.load import library
    from onnxfix.convention.plan import make_plan

    found = []
    for name, convention in library().items():
        try:
            make_plan(binding, convention)
        except OnnxfixError:
            continue
        if name != binding.convention.name:
            found.append(name)
    return found


def require_known_sizes(binding: Binding) -> None:
    """Refuses sizes of what is nowhere: a slip of the pen would silently do nothing.

    Raises:
        UsageError: Neither an axis nor a dim nor a metadata entry has this name, or the size is none.
    """
    from onnxfix.convention.signature import require_size

    for key, size in binding.sizes.items():
        require_size(size, f"--size {key}={size}")
        if key not in _size_names(binding):
            axes = sorted({axis for cache in binding.caches for axis in cache.spec.axes})
            dims = sorted(_symbols(binding))
            hint = f"axes of its caches: {', '.join(axes)}; symbolic dims: {', '.join(dims) or 'none'}"
            raise UsageError(f"the model has no axis or dim `{key}`", where=f"--size {key}={size}", hint=hint)


def _symbols(binding: Binding) -> set[str]:
    ports = (*binding.signature.inputs, *binding.signature.outputs)
    return {dim for port in ports for dim in port.dims or () if isinstance(dim, str)}


def _size_names(binding: Binding) -> set[str]:
    """Returns all names that a size can be given for: axes, `CACHE.AXIS`, dims, `PORT[INDEX]`, and metadata keys."""
    from onnxfix.convention.load import library

    names = _symbols(binding) | set(binding.signature.metadata) | set(binding.convention.sizes)
    for cache in binding.caches:
        names |= {name for axis in cache.spec.axes for name in (axis, f"{cache.spec.name}.{axis}")}
    for port in binding.signature.inputs:
        names |= {f"{port.name}[{index}]" for index in range(port.rank or 0)}
    # The ports that are no caches are fed as their namesakes in the library say.
    for convention in (binding.convention, *library().values()):
        names |= {axis for spec in (*convention.inputs, *convention.outputs) for axis in spec.layout.axes}
        names |= {name for text in convention.sizes.values() for name in text.names}
    return names
