"""`onnxfix.toml` at a zoo's root: which models are left out, and what the others shall speak.

Rules are read from top to bottom; where several name a model, the later one wins, key by key.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from onnxfix.convention.signature import require_size
from onnxfix.convention.tables import Table, TableReader, join, read_table, read_text
from onnxfix.errors import OnnxfixError, UsageError
from onnxfix.request import is_sentence
from onnxfix.zoo.limits import Limits, read_bytes, read_seconds
from onnxfix.zoo.settings import Change, Settings
from onnxfix.zoo.stores.store import Store
from onnxfix.zoo.survey import MANIFEST

_TOP = ("rule", "migrate")
_RULE = (
    "models", "exclude", "to", "from", "sizes", "dims", "feeds", "ticks", "seed", "simplify", "verify", "record",
)  # fmt: skip
_MIGRATE = ("jobs", "time-limit", "memory-limit", "only-models")


@dataclass(frozen=True)
class Rule:
    """What holds for some of the models.

    Attributes:
        models: Globs of paths below the root; one without `/` is held against the file's name alone.
        change: What it sets.
    """

    models: tuple[str, ...]
    change: Change

    def is_about(self, path: str) -> bool:
        """Whether it names a model."""
        return any(is_match(pattern, path) for pattern in self.models)


@dataclass(frozen=True)
class Manifest:
    """The rules of a zoo.

    Attributes:
        rules: In the file's order.
        limits: How much a migration may take.
        only_models: Whether other files stay behind.
        where: The file; empty where there is none.
    """

    rules: tuple[Rule, ...] = ()
    limits: Limits = field(default_factory=Limits)
    only_models: bool = False
    where: str = ""

    def settings(self, path: str, override: Change) -> Settings:
        """Returns what is asked for of one model.

        Args:
            path: The model, below the root.
            override: What the command line says.
        """
        settings = Settings()
        for rule in self.rules:
            if rule.is_about(path):
                settings = rule.change.applied(settings)
        return override.applied(settings)

    def unmatched(self, paths: Sequence[str]) -> list[str]:
        """Returns what there is to say of globs that name no model."""
        return [
            f"{self.where}: rule[{index}].models: `{pattern}` names no model"
            for index, rule in enumerate(self.rules)
            for pattern in rule.models
            if not any(is_match(pattern, path) for path in paths)
        ]


def manifest_of(zoo: Store) -> Manifest:
    """Returns the rules of a zoo; see `load_manifest`."""
    if zoo.folder is not None:
        return load_manifest(zoo.folder)
    if zoo.look(MANIFEST) is None:
        return Manifest()
    with tempfile.TemporaryDirectory(prefix="onnxfix-") as folder:
        zoo.fetch(MANIFEST, copy := Path(folder) / MANIFEST)
        return parse_manifest(read_text(copy, "the manifest"), where=zoo.at(MANIFEST), folder=None)


def load_manifest(root: Path) -> Manifest:
    """Returns the rules of a zoo; none where it has no manifest.

    Raises:
        UsageError: The manifest cannot be read, or holds what nobody knows; file and key path are named.
    """
    path = root / MANIFEST
    if not path.exists() and not path.is_symlink():
        return Manifest()
    return parse_manifest(read_text(path, "the manifest"), where=str(path), folder=root)


def parse_manifest(text: str, *, where: str, folder: Path | None = Path()) -> Manifest:
    """Returns the rules that a TOML text states.

    Args:
        text: The text.
        where: The file's name, for errors.
        folder: Where the files lie that conventions are named by; None: not on this machine, and none may be named.

    Raises:
        UsageError: The text is no TOML, or holds what nobody knows.
    """
    return _Reader(where, folder).manifest(read_table(text, where))


class _Reader(TableReader):
    """Takes rules out of TOML tables."""

    def __init__(self, file: str, folder: Path | None) -> None:
        super().__init__(file)
        self.folder = folder

    def manifest(self, table: Table) -> Manifest:
        self.allow(table, _TOP, "")
        rules = tuple(self.rule(entry, f"rule[{index}]") for index, entry in enumerate(self.tables(table, "rule")))
        own = self.table(table, "migrate")
        self.allow(own, _MIGRATE, "migrate")
        seconds, memory = (self.string(own, key, "migrate", "") for key in ("time-limit", "memory-limit"))
        limits = Limits(
            self.count(own, "jobs", "migrate", least=1),
            read_seconds(seconds, self.place("migrate.time-limit")) if seconds else None,
            read_bytes(memory, self.place("migrate.memory-limit")) if memory else None,
        )
        return Manifest(rules, limits, self.flag(own, "only-models", "migrate"), self.file)

    def rule(self, table: Table, path: str) -> Rule:
        self.allow(table, _RULE, path)
        models = self.strings(table, "models", path)
        if not models or not all(models):
            raise self.fail("which models is this about?", join(path, "models"), 'models = ["encoder/*.onnx"]')
        change = Change(
            to=self.speech(table, "to", path),
            from_=self.speech(table, "from", path),
            sizes=self.sizes(table, path),
            dims=self.dims(table, path),
            feeds=self.feeds(table, path),
            ticks=self.count(table, "ticks", path, least=1),
            seed=self.count(table, "seed", path),
            is_simplified=self.maybe(table, "simplify", path),
            is_verified=self.maybe(table, "verify", path),
            is_excluded=self.maybe(table, "exclude", path),
            is_recorded=self.maybe(table, "record", path),
        )
        return Rule(models, change)

    def maybe(self, table: Table, key: str, path: str) -> bool | None:
        return self.flag(table, key, path) if key in table else None

    def count(self, table: Table, key: str, path: str, *, least: int = 0) -> int | None:
        number = self.number(table, key, path)
        if number is not None and not least <= number < 2**63:
            raise self.fail(f"a number from {least} on is expected here", join(path, key))
        return number

    def speech(self, table: Table, key: str, path: str) -> tuple[str, ...] | None:
        """Returns how a convention is named; files are looked for beside the manifest."""
        if key not in table:
            return None
        texts = self.strings(table, key, path)
        files = [text.endswith(".toml") and not is_sentence(text) for text in texts]
        if self.folder is None and any(files):
            hint = "write it as sentences, or name a file of this machine with --to or --from"
            raise self.fail("files of conventions are not read from elsewhere", join(path, key), hint)
        folder = self.folder or Path()
        speech = tuple(str(folder / text) if is_file else text for text, is_file in zip(texts, files, strict=True))
        try:
            Settings(to=speech).require_conventions() if key == "to" else Settings(from_=speech).require_conventions()
        except OnnxfixError as error:
            error.where = self.place(join(path, key))
            raise
        return speech

    def sizes(self, table: Table, path: str) -> dict[str, int]:
        own = self.table(table, "sizes", path)
        found = {}
        for key, value in own.items():
            place = f"{path}.sizes.{key}"
            if not isinstance(value, int) or isinstance(value, bool):
                raise self.fail("a whole number is expected here", place)
            found[key] = require_size(value, self.place(place))
        return found

    def dims(self, table: Table, path: str) -> dict[str, int | str]:
        found: dict[str, int | str] = {}
        for key, value in self.table(table, "dims", path).items():
            if not isinstance(value, int | str) or isinstance(value, bool) or value == "":
                raise self.fail("a whole number or a name is expected here", f"{path}.dims.{key}")
            found[key] = value
        return found

    def feeds(self, table: Table, path: str) -> dict[str, str]:
        from onnxfix.verify.feed import Feed

        feeds = self.texts(table, "feeds", path)
        for port, rule in feeds.items():
            try:
                Feed.parse(port, rule)
            except UsageError as error:
                error.where = self.place(f"{path}.feeds.{port}")
                raise
        return feeds


def is_match(pattern: str, path: str) -> bool:
    """Whether a glob names a path.

    `*` and `?` stop at `/`, `**` does not; a pattern without `/` is held against the file's name alone.

    >>> is_match("encoder/**/*.onnx", "encoder/large/v2/model.onnx")
    True
    >>> is_match("*_int8.onnx", "encoder/model_int8.onnx")
    True
    """
    if "/" not in pattern:
        path = path.rpartition("/")[2]
    return glob_pattern(pattern).fullmatch(path) is not None


@cache
def glob_pattern(pattern: str) -> re.Pattern[str]:
    """Returns what a glob stands for, held against whole paths."""
    pieces = re.findall(r"\*\*/|\*\*|\*|\?|\[[!^]?\]?[^]]*\]|.", pattern, re.DOTALL)
    return re.compile("".join(_translated(pieces)), re.DOTALL)


def _translated(pieces: Iterable[str]) -> Iterable[str]:
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    for piece in pieces:
        if len(piece) > 2 and piece.startswith("["):
            inner = piece[1:-1].replace("\\", "\\\\").replace("[", "\\[")
            is_not = inner[0] in "!^"
            yield f"[{'^/' if is_not else ''}{inner[is_not:].replace(']', chr(92) + ']')}]"
        else:
            yield known.get(piece) or re.escape(piece)
