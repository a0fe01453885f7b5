"""`genai_config.json`: which ports ONNX Runtime GenAI binds, by name, and how they follow a conversion.

How caches are allocated is read in microsoft/onnxruntime-genai: src/models/kv_cache.cpp. A model of type `gpt2` has
keys and values stacked in one tensor per layer, a model of any other type has them apart (src/models/model.cpp and
gpt.cpp), so the type follows the caches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnxfix.convention.plan import CachePlan, Plan
from onnxfix.convention.route import Block, Route
from onnxfix.convention.signature import Port
from onnxfix.errors import SideFileError
from onnxfix.sidefiles.change import Beside, SideFile
from onnxfix.sidefiles.genai_keys import APART, DEFAULTS, STACKED, pattern_of, section_of, value_of
from onnxfix.sidefiles.jsontext import JsonText
from onnxfix.sidefiles.names import GENAI

_LAYOUTS = {"apart": "batch head time dim", "stacked": "kv batch head time dim"}
_NUMBERS = ("int32", "int64")


def follow(beside: Beside, plan: Plan) -> SideFile:
    """Returns what becomes of the file when a model is converted.

    Raises:
        SideFileError: It is no such file, it speaks of another model, or GenAI cannot take the result.
    """
    text = JsonText(beside.text, beside.source)
    editor = _Editor(text, plan, section_of(text, beside.old, beside.new), beside.new)
    editor.write_filename()
    for cache in plan.caches:
        editor.write_cache(cache)
    for before, after in plan.renames.items():
        editor.write_name(before, after)
    editor.look_at_sizes()
    editor.look_at_integers()
    return beside.becomes(text.text, editor.changes, editor.notes)


@dataclass(frozen=True)
class _Names:
    """What the file says, or shall say, of the tensors of one cache on one side: key to name or pattern."""

    values: Mapping[str, str]
    is_stacked: bool = False


class _Editor:
    """Writes one section of the file, and keeps what it did."""

    def __init__(self, text: JsonText, plan: Plan, section: str, filename: str) -> None:
        self.changes: list[str] = []
        self.notes: list[str] = []
        self._text = text
        self._plan = plan
        self._at = ("model", section)
        self._filename = filename

    def write_filename(self) -> None:
        if self._text.text_at(*self._at, "filename") != self._filename:
            self._set(self._filename, *self._at, "filename")

    def write_name(self, before: str, after: str) -> None:
        """Writes the new name of a port that is no cache."""
        is_input = self._plan.binding.signature.input(before) is not None
        side = "inputs" if is_input else "outputs"
        key = self._key_of(side, before)
        if key is not None:
            self._set(after, *self._at, side, key)
        elif self._key_of(side, after) is None:
            self.notes.append(f"{GENAI} has no key for the {side[:-1]} `{after}`")

    def write_cache(self, cache: CachePlan) -> None:
        """Writes the names of a cache's tensors.

        Raises:
            SideFileError: The file calls them neither as the source does nor as the result does, or GenAI cannot take
                the result.
        """
        for side, route in zip(("inputs", "outputs"), cache.routes, strict=False):
            is_cross = cache.present is None or cache.is_fixed
            if (is_cross and side == "outputs") or self._is_derived(side, route.target):
                continue
            if not self._is_bound(side, cache, route):
                continue
            wanted = self._names(side, route.target, cache)
            if wanted is None:
                raise self._unfit(cache, route)
            self._replace(side, self._names(side, route.source, cache), wanted, cache)

    def _is_bound(self, side: str, cache: CachePlan, route: Route) -> bool:
        """Whether GenAI finds these tensors by what the file says; a cache that stays need not be one of these."""
        names = self._names(side, route.source, cache)
        if _has_keys(route.source) or len(route.source) == len(route.target) == 1:
            return not cache.is_kept or (names is not None and any(self._said(side, key) for key in names.values))
        # Of layers without attention there may be several kinds, and GenAI has one key.
        known = [names, self._names(side, route.target, cache)]
        is_named = any(one and all(self._value(side, key) == name for key, name in one.values.items()) for one in known)
        if not is_named and not cache.is_kept:
            self.notes.append(f"{GENAI} has no key for `{route.target[0].name}` of the cache `{cache.name}`")
        return is_named and not cache.is_kept

    def _is_derived(self, side: str, blocks: Iterable[Block]) -> bool:
        """Whether GenAI makes these names of the pattern for keys (src/models/recurrent_state.cpp)."""
        found = list(blocks)
        if _axes(found) != {"layer"} or _has_keys(found):
            return False
        stem = self._value(side, "past_key_names" if side == "inputs" else "present_key_names").rpartition(".")[0]
        return pattern_of(found) in (f"{stem}.conv_state", f"{stem}.recurrent_state")

    def _replace(self, side: str, current: _Names | None, wanted: _Names, cache: CachePlan) -> None:
        stacked = "past_names" if side == "inputs" else "present_names"
        other = stacked not in wanted.values and self._said(side, stacked)
        if not other and all(self._value(side, key) == name for key, name in wanted.values.items()):
            self._set_type(wanted.is_stacked, cache)
            return
        if current is None or any(self._value(side, key) != name for key, name in current.values.items()):
            key = next(iter(current.values if current else wanted.values))
            said = self._value(side, key)
            shown = f"`{said}`" if said else "nothing"
            real = "; ".join(f"`{name}`" for name in current.values.values()) if current else "something else"
            hint = (
                "The file belongs to another model, or another version of it: correct it, or leave --write-config out."
            )
            raise self._text.fail(
                f"this says {shown}, the model's cache `{cache.name}` is {real}", *self._at, side, key, hint=hint
            )
        for key, name in wanted.values.items():
            if self._value(side, key) != name or other:
                self._set(name, *self._at, side, key)
        for key in (key for key in current.values if key not in wanted.values and self._said(side, key)):
            self.changes.append(f"{'.'.join((*self._at, side, key))} goes, was {self._value(side, key)}")
            self._text.remove(*self._at, side, key)
        self._set_type(wanted.is_stacked, cache)

    def _set_type(self, is_stacked: bool, cache: CachePlan) -> None:
        """Lets the type of the model say how keys and values come."""
        if not _has_keys(cache.past.target):
            return
        kind = self._text.text_at("model", "type")
        if is_stacked and kind != STACKED:
            self._set(STACKED, "model", "type")
        if not is_stacked and kind == STACKED:
            self._set(APART, "model", "type")
            # A model of type gpt2 never shares its buffers, whatever the file says.
            if self._text.get("search", "past_present_share_buffer") is True:
                self._set(False, "search", "past_present_share_buffer")

    def _names(self, side: str, blocks: Iterable[Block], cache: CachePlan) -> _Names | None:
        """Returns how the file says names like these; None if it cannot."""
        found = list(blocks)
        cross = "cross_" if cache.present is None or cache.is_fixed else ""
        stem = f"{cross}{'past' if side == 'inputs' else 'present'}"
        if _axes(found) == {"layer", "kv"}:
            parts = {label: [block for block in found if dict(block.labels)["kv"] == label] for label in (0, 1)}
            patterns = {f"{stem}_{kv}_names": pattern_of(parts[label]) for label, kv in enumerate(("key", "value"))}
            if any(block.layout != found[0].layout for block in found):
                return None
            return self._complete(patterns, str(found[0].layout) == _LAYOUTS["apart"])
        if _axes(found) == {"layer"} and _has_keys(found):
            fits = not cross and str(found[0].layout) == _LAYOUTS["stacked"]
            return self._complete({f"{stem}_names": pattern_of(found)}, fits, is_stacked=True)
        if _axes(found) == {"layer"}:
            return self._complete({f"{stem}_conv_names": pattern_of(found)}, not cross)
        if len(found) == 1:
            key = self._key_of(side, found[0].name)
            old = next((old for old, new in _moves(cache, side) if new == found[0].name), None)
            key = key or (self._key_of(side, old) if old else None)
            return _Names({key: found[0].name}) if key else None
        return None

    def _complete(self, patterns: Mapping[str, str | None], fits: bool, *, is_stacked: bool = False) -> _Names | None:
        known = {key: pattern for key, pattern in patterns.items() if pattern is not None}
        return _Names(known, is_stacked) if fits and len(known) == len(patterns) else None

    def _unfit(self, cache: CachePlan, route: Route) -> SideFileError:
        first = route.target[0]
        takes = " or ".join(f"`{layout}`" for layout in _LAYOUTS.values())
        message = f"GenAI cannot be told of the cache `{cache.name}`: `{first.name}` is `{first.layout}`"
        hint = f"It takes {takes}, named with one pattern for all layers; leave --write-config out for another runtime."
        return self._text.fail(message, *self._at, hint=hint)

    def look_at_sizes(self) -> None:
        """Compares the sizes that GenAI allocates caches by with those of the model."""
        for cache in self._plan.caches:
            blocks = cache.past.target
            if _axes(blocks) not in ({"layer", "kv"}, {"layer"}) or cache.present is None:
                continue
            for key, axis in (("num_key_value_heads", "head"), ("head_size", "dim")):
                self._compare(
                    key, {block.dims[block.layout.place(axis)[0]] for block in blocks if axis in block.layout.axes}
                )
            if _has_keys(blocks):
                # Those of other kinds of layers are not counted here.
                layers = {dict(block.labels)["layer"] for block in blocks}
                if len(self._plan.caches) == 1:
                    self._compare("num_hidden_layers", {len(layers)})

    def _compare(self, key: str, sizes: set[int | str | None]) -> None:
        said = self._text.get(*self._at, key)
        if len(sizes) == 1 and isinstance(said, int) and isinstance(size := next(iter(sizes)), int) and said != size:
            self.notes.append(f"{GENAI} says {key} = {said}, the model has {size}: GenAI goes by the file")

    def look_at_integers(self) -> None:
        """Says what GenAI refuses when it makes the mask and the positions (src/models/position_inputs.cpp)."""
        ports = {port.name: port for port in self._plan.inputs}
        keys = ("attention_mask", "position_ids")
        found = [ports[name] for key in keys if (name := self._value("inputs", key)) in ports]
        if not found or self._at[1] != "decoder":
            return
        odd = [port for port in found if port.dtype not in _NUMBERS]
        for port in odd:
            self.notes.append(
                f"GenAI feeds int32 or int64 to `{port.name}`, which is {port.dtype}: {_cast(port, 'int64')}"
            )
        if len(found) == 2 and not odd and found[0].dtype != found[1].dtype:
            first, second = found
            self.notes.append(
                f"GenAI wants one type for `{first.name}` and `{second.name}`, not {first.dtype} and {second.dtype}: "
                f"{_cast(second, first.dtype)}"
            )

    def _key_of(self, side: str, name: str) -> str | None:
        """Returns the key whose value, said or not, is a name."""
        said = self._text.table_at(*self._at, side) or {}
        keys = [*said, *(key for key in DEFAULTS[side] if key not in said)]
        return next((key for key in keys if self._value(side, key) == name), None)

    def _said(self, side: str, key: str) -> bool:
        return bool(self._text.text_at(*self._at, side, key))

    def _value(self, side: str, key: str) -> str:
        """Returns what holds for a key, said or not; empty for nothing."""
        return value_of(self._text, self._at[1], side, key)

    def _set(self, value: str | bool, *keys: str) -> None:
        old = self._text.get(*keys)
        was = "" if old is None else f", was {_plain(old)}"
        self.changes.append(f"{'.'.join(keys)} = {_plain(value)}{was}")
        self._text.set(value, *keys)


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cast(port: Port, dtype: str) -> str:
    return f"--cast {port.name}={dtype}"


def _moves(cache: CachePlan, side: str) -> list[tuple[str, str]]:
    """Returns old and new names of a cache that is one tensor before and after."""
    route = cache.past if side == "inputs" else cache.present
    if route is None or len(route.source) != 1 or len(route.target) != 1:
        return []
    return [(route.source[0].name, route.target[0].name)]


def _axes(blocks: Iterable[Block]) -> set[str]:
    return {axis for block in blocks for axis, _ in block.labels}


def _has_keys(blocks: Sequence[Block]) -> bool:
    """Whether a cache is one of keys and values, apart or not."""
    return "kv" in _axes(blocks) | set(blocks[0].layout.axes)
