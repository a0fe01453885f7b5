"""What a process is asked to do with one model, and what it hands back: plain values that travel between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from onnxfix.zoo.journal import Mark
from onnxfix.zoo.outcome import Outcome
from onnxfix.zoo.settings import Settings


class Aim(StrEnum):
    """What is done with a model."""

    MIGRATE = "migrate"
    CHECK = "check"
    VERIFY = "verify"


@dataclass(frozen=True)
class Task:
    """What a process is asked to do with one model; it travels to that process.

    Attributes:
        path: The model, below the root of the zoo.
        source: The file: a path, or a URL.
        stage: Where its results are laid down: a folder of its own, or its URL; in place, a hidden file beside the
            source. Empty where nothing is written.
        settings: What is asked for.
        aim: What is done.
        is_in_place: Whether the result takes the source's place.
        against: To verify: the original or a trace that `source` is held against; empty where there is neither.
        size: Bytes of the model file, from which the memory is guessed that it takes.
        scratch: A folder for what is needed meanwhile, that is swept if the process is killed; empty, or elsewhere than
            on the machine that works: the system's.
    """

    path: str
    source: str
    stage: str
    settings: Settings
    aim: Aim = Aim.MIGRATE
    is_in_place: bool = False
    against: str = ""
    size: int = 0
    scratch: str = ""


@dataclass(frozen=True)
class Staged:
    """A file that is complete, and not yet at its place.

    Attributes:
        mark: What it will be, below the root of the destination.
        file: Where it lies now: a path, or a URL.
    """

    mark: Mark
    file: str


@dataclass(frozen=True)
class Work:
    """What a process has done.

    Attributes:
        outcome: What became of the model.
        source: The model file as it was read; None where it was not.
        data: The data files that it names.
        results: What is to be delivered, data files first.
        seconds: How long each stage took.
        is_disk_full: Whether there was no space for the results.
        is_cut_off: Whether the zoo or the destination did not do as it was asked.
    """

    outcome: Outcome
    source: Mark | None = None
    data: tuple[Mark, ...] = ()
    results: tuple[Staged, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    is_disk_full: bool = False
    is_cut_off: bool = False
