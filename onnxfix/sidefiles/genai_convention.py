"""The convention that a `genai_config.json` describes: GenAI's, with the names that the file has."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from onnxfix.convention.convention import CacheSpec, Convention, PortSpec, TensorSpec, parse_tensor
from onnxfix.convention.load import library
from onnxfix.errors import ConventionError, SideFileError
from onnxfix.sidefiles.genai_keys import DEFAULTS, SECTIONS, STACKED, value_of
from onnxfix.sidefiles.jsontext import JsonText
from onnxfix.sidefiles.reading import read_text

_BY_TYPE = {
    STACKED: "gpt2-stacked",
    "lfm2": "genai-lfm2",
    "marian-ssru": "marian-ssru",
    "whisper": "ort-whisper",
    "nemotron_speech": "genai-nemotron",
    "qwen3_5": "genai-qwen3-next",
    "qwen3_5_moe": "genai-qwen3-next",
    "qwen3_5_text": "genai-qwen3-next",
    "qwen3_5_moe_text": "genai-qwen3-next",
}
"""What GenAI expects of models of some types; `genai` of all others."""


def convention_of(path: Path) -> Convention:
    """Returns the convention that a file describes.

    Raises:
        ConventionError: It cannot be read, is no such file, or its names are no patterns.
        LayoutError: A name in it cannot be written as a sentence.
    """
    try:
        text = JsonText(read_text(path), path)
        kind = text.text_at("model", "type")
        if kind is None:
            raise text.fail("there is no `model.type`", hint="This is no genai_config.json that GenAI reads.")
        base = library()[_BY_TYPE.get(kind, "genai")]
        section = "encoder" if base.name == "genai-nemotron" else SECTIONS[0]
        return _Reader(text, section, path.name).named(base)
    except SideFileError as error:
        raise ConventionError(error.message, where=error.where, hint=error.hint) from None


class _Reader:
    """Gives a convention the names that the file says."""

    def __init__(self, text: JsonText, section: str, name: str) -> None:
        self._text = text
        self._section = section
        self._name = name

    def named(self, base: Convention) -> Convention:
        """Returns the convention with the file's names; the very same where these are what it has."""
        ports = {port.name: self._port(side, port.name) for side, ports in _sides(base) for port in ports}
        found = replace(
            base,
            caches=tuple(self._cache(cache) for cache in base.caches),
            inputs=tuple(replace(port, name=ports[port.name]) for port in base.inputs),
            outputs=tuple(replace(port, name=ports[port.name]) for port in base.outputs),
            input_order=tuple(ports.get(name, name) for name in base.input_order),
            output_order=tuple(ports.get(name, name) for name in base.output_order),
        )
        return base if found == base else replace(found, name=self._name, successor=None)

    def _port(self, side: str, name: str) -> str:
        key = next((key for key, default in DEFAULTS[side].items() if default == name), None)
        return (self._value(side, key) or name) if key else name

    def _value(self, side: str, key: str) -> str:
        return value_of(self._text, self._section, side, key)

    def _cache(self, cache: CacheSpec) -> CacheSpec:
        past, present = self._tensors("inputs", cache), self._tensors("outputs", cache)
        if present and len(past) != len(present):  # they are paired one by one
            past, present = self._tensors("inputs", cache, apart=True), self._tensors("outputs", cache, apart=True)
        return replace(cache, past=past, present=present)

    def _tensors(self, side: str, cache: CacheSpec, *, apart: bool = False) -> tuple[TensorSpec, ...]:
        """Returns the sentences of one side; keys and values in one each if they are to be apart, or must be."""
        specs = cache.past if side == "inputs" else cache.present
        if not specs:
            return ()
        spec = specs[0]
        stem = "past" if side == "inputs" else "present"
        if not spec.template.holes:
            return (_tensor(self._port(side, str(spec.template)), spec),)
        if "kv" in spec.template.axes:
            stem = stem if cache.present else f"cross_{stem}"
            key, value = (self._pattern(side, f"{stem}_{kv}_names") for kv in ("key", "value"))
            if key == value:
                raise self._fail(side, f"{stem}_value_names", f"keys and values have one pattern, `{key}`")
            return tuple(_tensor(text, spec) for text in _templates(key, value, apart=apart))
        if "kv" in spec.layout.axes:
            return (_tensor(_with_layer(self._pattern(side, f"{stem}_names")), spec),)
        suffix = str(spec.template).rpartition(".")[2]
        if suffix.endswith("_state"):  # these follow the pattern of the keys
            keys = self._pattern(side, f"{stem}_key_names")
            return (_tensor(_with_layer(f"{keys.rpartition('.')[0]}.{suffix}"), spec),)
        return (_tensor(_with_layer(self._pattern(side, f"{stem}_conv_names")), spec),)

    def _pattern(self, side: str, key: str) -> str:
        """Returns a pattern of names.

        Raises:
            SideFileError: There is none, or it does not hold one `%d`.
        """
        pattern = self._value(side, key)
        if not pattern:
            raise self._fail(side, key, "a pattern of names is missing here")
        if pattern.count("%") != 1 or "%d" not in pattern:
            raise self._fail(side, key, f"`{pattern}` does not hold one %d, for the layer")
        return pattern

    def _fail(self, side: str, key: str, message: str) -> SideFileError:
        return self._text.fail(message, "model", self._section, side, key)


def _sides(base: Convention) -> list[tuple[str, tuple[PortSpec, ...]]]:
    return [("inputs", base.inputs), ("outputs", base.outputs)]


def _tensor(template: str, spec: TensorSpec) -> TensorSpec:
    if template == str(spec.template):
        return spec
    return replace(parse_tensor(f"{template}: {spec.layout}"), dims=spec.dims)


def _with_layer(pattern: str) -> str:
    return pattern.replace("%d", "{layer}")


def _templates(key: str, value: str, *, apart: bool = False) -> tuple[str, ...]:
    """Returns one template for keys and values or, where they differ around the layer or shall be apart, one for each.

    >>> _templates("past_%d.key", "past_%d.value")
    ('past_{layer}.{kv}',)
    >>> _templates("k%d", "v%d")
    ('{kv:k,v}{layer}',)
    >>> _templates("%d_k", "v_%d")
    ('{layer}_k{kv=key:}', 'v_{layer}{kv=value:}')
    """
    head = _alike(key, value)
    tail = _alike(key[head:][::-1], value[head:][::-1])
    ours, theirs = key[head : len(key) - tail], value[head : len(value) - tail]
    if apart or "%" in ours + theirs or "," in ours + theirs:
        return f"{_with_layer(key)}{{kv=key:}}", f"{_with_layer(value)}{{kv=value:}}"
    hole = "{kv}" if (ours, theirs) == ("key", "value") else f"{{kv:{ours},{theirs}}}"
    return (_with_layer(f"{key[:head]}{hole}{key[len(key) - tail :]}"),)


def _alike(one: str, other: str) -> int:
    """Returns how many letters two texts begin with in common."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
