"""Writes docs/conventions.md from the library: `python docs/make_conventions.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onnxfix.convention.catalogue import catalogue, facts_of, grouped, port_text, sentences_of, traits_of
from onnxfix.convention.convention import Convention
from onnxfix.convention.load import library, refused
from onnxfix.convention.reach import obstacles, reaches

PAGE = Path(__file__).with_name("conventions.md")
_PROSE = ("run by", "finds ports", "source", "refused", "what helps")
_HEAD = """\
# Conventions

What onnxfix knows by name: {known} conventions that models are converted from and to, and {refused} that it recognises
and does not convert. `onnxfix conventions` shows the same on the command line and finds by words. `onnxfix conventions
NAME --toml` prints one as a file to change and to hand to `--to`; `onnxfix conventions --check FILE` reads it again.

The sentences are those of the [README](../README.md#sentences). *append* means that the present is the past and what is
new, *window* that the oldest falls out, *delta* that only what is new comes out, *in-place* that what is new is written
into a cache of full length, *fixed* that the cache is only read. "Converts to" is about the sentences alone: the sizes
of a model may still stand in the way, and onnxfix then says which.

This page is made from `onnxfix/convention/library` by `python docs/make_conventions.py`.
"""


def page() -> str:
    """Returns the whole page."""
    parts = [_HEAD.format(known=len(library()), refused=len(refused()))]
    for title, members in grouped(catalogue()):
        parts.append(f"\n## {title}\n\n" + "\n".join(_table(members)) + "\n")
        parts += ["\n" + "\n".join(_section(one)) + "\n" for one in members]
    return "".join(parts)


def _table(members: list[Convention]) -> Iterator[str]:
    yield "| Convention | | Run by |"
    yield "|---|---|---|"
    for one in members:
        description = f"refused: {one.description}" if one.refused else one.description
        yield f"| [`{one.name}`](#{one.name}) | {_cell(description)} | {_cell(one.consumer)} |"


def _section(one: Convention) -> Iterator[str]:
    yield f"### {one.name}"
    yield ""
    yield f"{one.description}."
    for cache in one.caches:
        traits = ", ".join(traits_of(cache))
        yield ""
        yield f"Cache `{cache.name}`{f' ({traits})' if traits else ''}:"
        yield ""
        yield "```"
        yield from sentences_of(cache)
        yield "```"
    yield ""
    yield from (f"- {key}: {text if key in _PROSE else f'`{text}`'}" for key, text in facts_of(one))
    for kind, ports in (("inputs", one.inputs), ("outputs", one.outputs)):
        if ports:
            texts = [f"`{port_text(port)}` ({port.role}{', optional' if port.optional else ''})" for port in ports]
            yield f"- other {kind}: {', '.join(texts)}"
    found = reaches(one)
    if reached := [str(reach) for reach in found if not reach.obstacle]:
        yield f"- converts to: {', '.join(reached)}"
    for obstacle, names in obstacles(found).items():
        yield f"- not to {', '.join(names)}: {obstacle}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
