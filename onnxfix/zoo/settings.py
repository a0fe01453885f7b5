"""What is asked for of one model, as plain values: they travel to other processes, and tell what is out of date."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from onnxfix.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """How one model is converted and proven; see `onnxfix.convert`.

    Attributes:
        to: The convention to reach; empty: the successor.
        from_: The convention of the source; empty: it is detected.
        sizes, dims, feeds: Pairs, by key.
        ticks, seed: How the models are driven.
        is_simplified: Whether the graph is simplified first.
        is_verified: Whether the result is proven.
        is_excluded: Whether the model is left as it is, without looking into it.
        is_recorded: Whether a run of the source is kept, that its result can be held against later.
    """

    to: tuple[str, ...] = ()
    from_: tuple[str, ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()
    dims: tuple[tuple[str, int | str], ...] = ()
    feeds: tuple[tuple[str, str], ...] = ()
    ticks: int | None = None
    seed: int = 0
    is_simplified: bool = True
    is_verified: bool = True
    is_excluded: bool = False
    is_recorded: bool = False

    def key(self) -> str:
        """Returns a text that is equal for settings that mean the same.

        Files that hold conventions count by what is in them.
        """
        values = {name: value for name, value in sorted(vars(self).items()) if value != getattr(_DEFAULT, name)}
        files = [text for text in (*self.to, *self.from_) if text.endswith(".toml")]
        digests = {"files": [_digest(Path(text)) for text in files]} if files else {}
        return json.dumps({**values, **digests}, ensure_ascii=False)

    def require_conventions(self) -> None:
        """Reads the conventions that are named, so that a slip of the pen shows before any work is done.

        Raises:
            UsageError: One cannot be understood.
            PlanError: One is recognised only to be refused.
        """
        from onnxfix.request import read_convention

        for option, speech in (("--to", self.to), ("--from", self.from_)):
            if speech:
                read_convention(speech, option=option)


_DEFAULT = Settings()


def settings_from_key(key: str) -> Settings:
    """Returns the settings that a key was made of.

    Raises:
        ValueError: It is none.
    """
    values = {name: _frozen(value) for name, value in json.loads(key).items() if name != "files"}
    make: Callable[..., Settings] = Settings
    try:
        return make(**values)
    except TypeError as error:
        raise ValueError(str(error)) from None


def _frozen(value: object) -> object:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


@cache
def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"the convention cannot be read: {error.strerror}", where=str(path)) from None


@dataclass(frozen=True)
class Change:
    """Settings that a rule or the command line gives; None where it says nothing.

    Attributes:
        to, from_, sizes, dims, feeds, ticks, seed, is_simplified, is_verified, is_excluded, is_recorded: As in
            `Settings`. Of `sizes`, `dims` and `feeds`, single entries are changed.
    """

    to: tuple[str, ...] | None = None
    from_: tuple[str, ...] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    dims: Mapping[str, int | str] = field(default_factory=dict)
    feeds: Mapping[str, str] = field(default_factory=dict)
    ticks: int | None = None
    seed: int | None = None
    is_simplified: bool | None = None
    is_verified: bool | None = None
    is_excluded: bool | None = None
    is_recorded: bool | None = None

    def applied(self, settings: Settings) -> Settings:
        """Returns settings with this change."""
        return replace(
            settings,
            to=settings.to if self.to is None else self.to,
            from_=settings.from_ if self.from_ is None else self.from_,
            sizes=tuple(sorted({**dict(settings.sizes), **self.sizes}.items())),
            dims=tuple(sorted({**dict(settings.dims), **self.dims}.items())),
            feeds=tuple(sorted({**dict(settings.feeds), **self.feeds}.items())),
            ticks=settings.ticks if self.ticks is None else self.ticks,
            seed=settings.seed if self.seed is None else self.seed,
            is_simplified=settings.is_simplified if self.is_simplified is None else self.is_simplified,
            is_verified=settings.is_verified if self.is_verified is None else self.is_verified,
            is_excluded=settings.is_excluded if self.is_excluded is None else self.is_excluded,
            is_recorded=settings.is_recorded if self.is_recorded is None else self.is_recorded,
        )
