"""`config.pbtxt`: the inputs, outputs and states that Triton checks a model against, and how they follow a conversion.

What the fields mean is read in triton-inference-server/common: protobuf/model_config.proto, and in
triton-inference-server/core: src/sequence_batch_scheduler/sequence_batch_scheduler.cc, src/sequence_state.cc.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnxfix.convention.plan import CachePlan, Plan
from onnxfix.convention.route import Route
from onnxfix.errors import SideFileError
from onnxfix.sidefiles.change import Beside, SideFile
from onnxfix.sidefiles.names import TRITON
from onnxfix.sidefiles.pbtxt import Message, parse, quoted, scalars_in
from onnxfix.sidefiles.pbtxt_edit import Edit, applied, list_edits, new_line, scalar_edit
from onnxfix.sidefiles.triton_entry import KINDS, OUTPUT, STATE, Entry, Kind, shape_of, sizes_of, written
from onnxfix.sidefiles.triton_ports import few, port_renames, ports_by_name, swapped

_DEFAULT_MODEL = "model.onnx"
"""What Triton loads where the file does not say it (triton-inference-server/onnxruntime_backend)."""
_CORRECT = "The file belongs to another model, or another version of it: correct it, or leave --write-config out."


def follow(beside: Beside, plan: Plan) -> SideFile:
    """Returns what becomes of the file when a model is converted.

    Raises:
        SideFileError: It is no such file, it speaks of other ports, or Triton cannot be told of the result.
    """
    config = _Config(beside, plan)
    config.require_model()
    if config.speaks_of_source():
        for kind in KINDS:
            config.follow_list(kind)
        config.follow_controls()
    config.write_filename()
    config.look_around()
    return beside.becomes(config.text, config.changes, config.notes)


class _Config:
    """One file and one plan; each step changes `text`, and says so in `changes`."""

    def __init__(self, beside: Beside, plan: Plan) -> None:
        self.text = beside.text
        self.changes: list[str] = []
        self.notes: list[str] = []
        self._beside = beside
        self._where = str(beside.source)
        self._plan = plan
        self._renames = port_renames(plan)
        self._parsed: tuple[str, Message] | None = None
        signature = plan.binding.signature
        self._old = ports_by_name(signature.inputs, signature.outputs)
        self._new = ports_by_name(plan.inputs, plan.outputs)

    @property
    def _whole(self) -> Message:
        """The text as it is now, taken apart once."""
        if self._parsed is None or self._parsed[0] != self.text:
            self._parsed = self.text, parse(self.text, self._where)
        return self._parsed[1]

    @property
    def _is_batched(self) -> bool:
        """Whether Triton puts a batch in front of all dims."""
        most = self._whole.numbers("max_batch_size")
        return bool(most and most[0] > 0)

    def require_model(self) -> None:
        """Checks that this is the configuration of the model that is converted.

        Raises:
            SideFileError: It is not.
        """
        whole = self._whole
        if whole.named("ensemble_scheduling") or whole.text("platform") == "ensemble":
            raise SideFileError("this is the configuration of an ensemble, not of a model", where=self._where)
        loaded = whole.text("default_model_filename") or _DEFAULT_MODEL
        if loaded not in (self._beside.old, self._beside.new):
            hint = f"Give the model that name, or write default_model_filename: {quoted(self._beside.old)}"
            message = f"this file speaks of `{loaded}`, not of `{self._beside.old}`"
            raise SideFileError(message, where=self._where, hint=hint)

    def speaks_of_source(self) -> bool:
        """Whether the file names the ports of the source; False if it names those of the result already.

        Raises:
            SideFileError: It names others.
        """
        named = [
            (kind, entry, kind.is_input(key), name)
            for kind in KINDS
            for entry in self._entries(kind)
            for key, name in entry.names.items()
        ]
        odd = [one for one in named if one[2:] not in self._old]
        if not odd:
            self._require_pairs()
            return True
        if all(one[2:] in self._new for one in named):
            return False
        _, entry, is_input, name = odd[0]
        message = f"the model has no {'input' if is_input else 'output'} `{name}`"
        raise SideFileError(message, where=entry.message.where, hint=_CORRECT)

    def _require_pairs(self) -> None:
        """Checks that states are what the model feeds back."""
        known = self._plan.binding.pairs
        for entry in self._entries(STATE):
            past, present = entry.names.values()
            if known.get(past, present) != present:
                message = f"the output that feeds `{past}` is `{known[past]}` in the model, here it is `{present}`"
                raise SideFileError(message, where=entry.message.where, hint=_CORRECT)

    def follow_list(self, kind: Kind) -> None:
        """Writes the entries of one list for the ports of the result."""
        entries = {entry.port: entry for entry in self._entries(kind)}
        if not entries:
            return
        is_input = kind.is_input(kind.keys[0])
        new: dict[int, list[str]] = {}
        for cache in self._plan.caches:
            route = cache.past if is_input else cache.present
            if route is not None and not route.is_rename:
                new |= self._rearranged(kind, entries, cache, route)
        for entry in entries.values():
            if entry.message.start not in new:
                new[entry.message.start] = [self._renamed(kind, entry)]
        standing = [entry.message for entry in entries.values()]
        old = {message.start: self.text[message.start : message.stop] for message in standing}
        changed = {place: texts for place, texts in new.items() if texts != [old[place]]}
        owner = self._owner(kind)
        if changed and owner is not None:
            self.text = applied(self.text, list_edits(self.text, owner, kind.name, changed))

    def _rearranged(
        self, kind: Kind, entries: Mapping[str, Entry], cache: CachePlan, route: Route
    ) -> dict[int, list[str]]:
        """Returns the entries that take the place of those of a cache whose tensors are others afterwards."""
        listed = [entries[block.name] for block in route.source if block.name in entries]
        if not listed:
            return {}
        missing = next((block.name for block in route.source if block.name not in entries), None)
        if missing is not None and kind is not OUTPUT:  # outputs may be left out
            message = f"`{missing}` of the cache `{cache.name}` is not in `{kind.name}`, `{listed[0].port}` is"
            raise SideFileError(message, where=self._where, hint=_CORRECT)
        first, sizes = listed[0], self._sizes(kind, listed)
        pairs = self._plan.pairs
        ports = self._plan.outputs if kind is OUTPUT else self._plan.inputs
        places = {port.name: place for place, port in enumerate(ports)}
        texts = []
        targets = sorted(route.target, key=lambda block: places[block.name])
        for block in targets:
            port = self._new[kind is not OUTPUT, block.name]
            if self._is_batched and (not block.layout.items or block.layout.items[0] != ("batch",)):
                message = f"Triton batches along the first dim, and `{block.name}` is `{block.layout}`"
                hint = "Convert to a layout that begins with batch, or write max_batch_size: 0."
                raise SideFileError(message, where=self._where, hint=hint)
            names = dict(zip(kind.keys, (block.name, pairs.get(block.name, "")), strict=False))
            shapes = [shape_of(port, one, self._is_batched, self._where) for one in sizes]
            self._require_sizes(shapes, block.name)
            dtype = port.dtype if port.dtype != self._old[kind is not OUTPUT, first.port].dtype else ""
            texts.append(written(self.text, first, names, dtype, shapes))
        self.changes.append(
            f"{kind.name}: {few([one.port for one in listed])} -> {few([block.name for block in targets])}"
        )
        return {entry.message.start: texts if entry is first else [] for entry in listed}

    def _sizes(self, kind: Kind, listed: Sequence[Entry]) -> list[dict[str, int]]:
        """Returns the sizes of symbolic dims that entries say and, for states that say how they begin, those at first.

        Raises:
            SideFileError: An entry does not fit its port, or states begin with the content of a file.
        """
        found: list[dict[str, int]] = [{}]
        for entry in listed:
            port = self._old[kind is not OUTPUT, entry.port]
            shapes = [entry.shape]
            if entry.message.named("reshape"):
                message = f"`{entry.port}` is reshaped, and its dims change"
                raise SideFileError(message, where=entry.message.where, hint="Leave --write-config out.")
            initial = entry.initial()
            if initial is not None:
                if initial.text("data_file") is not None:
                    message = f"`{entry.port}` begins with the content of a file, which is not converted"
                    raise SideFileError(message, where=initial.where, hint="Leave --write-config out.")
                shapes.append(initial.numbers("dims"))
            found += [{} for _ in shapes[len(found) :]]
            for known, shape in zip(found, shapes, strict=False):
                for dim, size in sizes_of(port, shape, self._is_batched, entry.message.where).items():
                    name = self._plan.symbols.get(dim, dim)
                    if isinstance(name, str):
                        known[name] = size if known.get(name, size) == size else -1
        return found

    def _require_sizes(self, shapes: Sequence[tuple[int, ...]], name: str) -> None:
        """A sequence begins with a state of one size."""
        if len(shapes) > 1 and -1 in shapes[1]:
            message = f"how large the state `{name}` is at first cannot be told from those that it is made of"
            raise SideFileError(message, where=self._where, hint="Take their initial_state out, and write it by hand.")

    def _renamed(self, kind: Kind, entry: Entry) -> str:
        """Returns an entry whose port keeps its layout, but maybe not its name, its type and its axes of size 1."""
        is_input = kind.is_input(kind.keys[0])
        old = self._old[is_input, entry.port]
        names = {key: self._renames.get((kind.is_input(key), name), name) for key, name in entry.names.items()}
        new = self._new[is_input, names[kind.keys[0]]]
        shapes: list[tuple[int, ...]] = []
        if new.name in self._plan.unit_axes:
            sizes = sizes_of(old, entry.shape, self._is_batched, entry.message.where)
            shapes = [shape_of(new, sizes, self._is_batched, entry.message.where)]
        elif new.dims != old.dims and new.dims is not None:
            # A size that is fixed from now on; the file may know more sizes than the model.
            fixed = new.dims[1:] if self._is_batched else new.dims
            sizes_of(old, entry.shape, self._is_batched, entry.message.where)
            pairs = zip(entry.shape, fixed, strict=True)
            shapes = [tuple(dim if isinstance(dim, int) else size for size, dim in pairs)]
        dtype = new.dtype if new.dtype != old.dtype else ""
        text = written(self.text, entry, names, dtype, shapes)
        if text != self.text[entry.message.start : entry.message.stop]:
            shown = f"{entry.port} -> {new.name}" if entry.port != new.name else f"{new.name}: type or dims"
            self.changes.append(f"{kind.name}: {shown}")
        return text

    def follow_controls(self) -> None:
        """Writes the new names of inputs by which Triton tells a model where a sequence begins and ends."""
        edits: list[Edit] = []
        for batching in self._whole.messages("sequence_batching"):
            for control in batching.messages("control_input"):
                name = control.text("name") or ""
                new = self._renames.get((True, name), name)
                if new != name:
                    edits += scalar_edit(control, "name", quoted(new))
                    self.changes.append(f"control_input: {name} -> {new}")
        self.text = applied(self.text, edits)

    def write_filename(self) -> None:
        """Writes the name of the result's file, where Triton would look for another one."""
        whole = self._whole
        loaded = whole.text("default_model_filename") or _DEFAULT_MODEL
        if loaded == self._beside.new:
            return
        self.changes.append(f"default_model_filename: {loaded} -> {self._beside.new}")
        edits = scalar_edit(whole, "default_model_filename", quoted(self._beside.new))
        if not edits:
            line = f"default_model_filename: {quoted(self._beside.new)}"
            edits = [new_line(self.text, whole, ("backend", "platform", "name"), line)]
        self.text = applied(self.text, edits)

    def look_around(self) -> None:
        """Says what the file may hold besides that does not fit the result."""
        whole = self._whole
        gone = {name for _, name in self._old} - {name for _, name in self._new}
        elsewhere = (field for field in whole.fields if field.name not in ("input", "output", "sequence_batching"))
        for field in elsewhere:
            for name in sorted({text for value in field.values for text in scalars_in(value.message)} & gone):
                self.notes.append(f"{TRITON} speaks of `{name}` in `{field.name}` too: change that by hand")
        called, folder = whole.text("name"), self._beside.destination.absolute().parent.name
        if called and called != folder and self._beside.destination != self._beside.source:
            wanted = f"Triton wants the name of its folder: `{folder}`"
            self.notes.append(f"{TRITON} calls the model `{called}`, and {wanted}")
        self.notes += swapped({entry.names["input_name"]: entry.names["output_name"] for entry in self._entries(STATE)})

    def _owner(self, kind: Kind) -> Message | None:
        whole = self._whole
        owners = whole.messages("sequence_batching") if kind is STATE else [whole]
        if len(owners) > 1:
            raise SideFileError("`sequence_batching` stands twice", where=self._where, hint="Remove one of them.")
        return owners[0] if owners else None

    def _entries(self, kind: Kind) -> list[Entry]:
        owner = self._owner(kind)
        found = [Entry.read(message, kind) for message in owner.messages(kind.name)] if owner is not None else []
        for key in kind.keys:
            names = [entry.names[key] for entry in found]
            twice = next((entry for place, entry in enumerate(found) if entry.names[key] in names[:place]), None)
            if twice is not None:
                raise SideFileError(f"`{twice.names[key]}` stands twice in `{kind.name}`", where=twice.message.where)
        return found
