"""`onnxfix conventions [WORD...]`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxfix.cli.options import json_option, require_unicode
from onnxfix.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from onnxfix.convention.convention import Convention
    from onnxfix.report import Json


@click.command()
@click.argument("words", nargs=-1, metavar="[NAME | FILE.toml | WORD...]")
@click.option("--toml", "as_toml", is_flag=True, help="Print NAME as a TOML file, to be changed and given to --to.")
@click.option(
    "--check", "checked", type=click.Path(path_type=Path), metavar="FILE",
    help="Read a TOML file of one's own, and say what is worth a second look.",
)  # fmt: skip
@json_option
def conventions(words: tuple[str, ...], as_toml: bool, checked: Path | None, as_json: bool) -> None:
    """List the conventions that onnxfix knows; show one (a name or a TOML file); or find those that speak of WORDs.

    WORDs are looked for in names, descriptions, sources, programs that run such models, and names of ports.
    """
    from onnxfix.cli.console import print_json, results
    from onnxfix.convention.catalogue import catalogue
    from onnxfix.convention.writing import to_toml

    if checked is not None:
        _check(checked, words, as_toml=as_toml, as_json=as_json)
        return
    shown = _named(words)
    if as_toml:
        if shown is None:
            raise UsageError("which convention?", where="--toml", hint="onnxfix conventions NAME --toml")
        results().out(to_toml(shown).rstrip(), highlight=False)
    elif shown is not None:
        print_json({**_to_json(shown), **_reaches_json(shown)}) if as_json else _show_one(shown)
    else:
        found = _found(words) if words else catalogue()
        print_json([_to_json(one) for one in found]) if as_json else _show_all(found)


def _named(words: Sequence[str]) -> Convention | None:
    """Returns the convention that is meant, if a single word is the name of one or a file."""
    from onnxfix.convention.catalogue import catalogue
    from onnxfix.convention.load import load_convention

    if len(words) == 1 and (words[0].endswith(".toml") or words[0] in {one.name for one in catalogue()}):
        return load_convention(words[0])
    return None


def _found(words: Sequence[str]) -> list[Convention]:
    """Returns the conventions that speak of all words.

    Raises:
        UsageError: None does.
    """
    import difflib

    from onnxfix.convention.catalogue import catalogue, search

    for word in words:
        require_unicode("conventions", word)
    if found := search(words):
        return found
    close = difflib.get_close_matches(" ".join(words), [one.name for one in catalogue()], n=2)
    hint = f"did you mean {' or '.join(close)}?" if close else "onnxfix conventions lists all of them"
    raise UsageError(f"no convention speaks of {' and '.join(f'`{word}`' for word in words)}", hint=hint)


def _check(path: Path, words: Sequence[str], *, as_toml: bool, as_json: bool) -> None:
    from onnxfix.cli.console import count_text, people, print_json, results
    from onnxfix.convention.load import load_convention
    from onnxfix.convention.review import review

    if words or as_toml:
        raise UsageError("this goes with no name and no --toml", where=f"--check {path}")
    convention = load_convention(path)
    remarks = review(convention)
    if as_json:
        print_json({"name": convention.name, "remarks": list(remarks)})
        return
    for remark in remarks:
        people().print(f"note  {remark}", soft_wrap=True)
    ports = len(convention.inputs) + len(convention.outputs)
    counts = f"{count_text(len(convention.caches), 'cache')}, {count_text(ports, 'other port')}"
    results().print(f"{path} is a convention: {convention.name}, {counts}", soft_wrap=True)


def _show_all(known: Sequence[Convention]) -> None:
    from rich.table import Table
    from rich.text import Text

    from onnxfix.cli.console import print_table, results
    from onnxfix.convention.catalogue import grouped

    width = max(len(one.name) for one in known)
    for index, (title, members) in enumerate(grouped(known)):
        if index:
            results().print()
        results().print(Text(title, "bold cyan"))
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, min_width=width)
        table.add_column(overflow="fold")
        for one in members:
            text = Text(f"refused: {one.description}", "dim") if one.refused else Text(one.description)
            table.add_row(Text(one.name, "dim" if one.refused else "bold"), text)
        print_table(results(), table)


def _show_one(one: Convention) -> None:
    from rich.text import Text

    from onnxfix.cli.console import results
    from onnxfix.convention.catalogue import facts_of, port_text, sentences_of, traits_of

    console = results()
    console.print(Text(one.name, "bold"), soft_wrap=True)
    if one.description:
        console.print(f"  {one.description}", soft_wrap=True)
    for key, text in facts_of(one):
        console.print(f"  {key}: {text}", soft_wrap=True)
    for cache in one.caches:
        traits = ", ".join(traits_of(cache))
        console.print(Text().append(f"\ncache {cache.name}", "bold").append(f" ({traits})" if traits else ""))
        for sentence in sentences_of(cache):
            console.print(Text(f"  {sentence}", "cyan"), soft_wrap=True)
    for kind, ports in (("inputs", one.inputs), ("outputs", one.outputs)):
        if ports:
            console.print(Text(f"\nother {kind}", "bold"))
        for port in ports:
            extra = " (optional)" if port.optional else ""
            dtype = f" {port.dtype}" if port.dtype else ""
            line = Text().append(f"  {port_text(port)}", "cyan").append(f"{dtype}, {port.role}{extra}")
            console.print(line, soft_wrap=True)
    _show_reaches(console, one)


def _show_reaches(console: Console, one: Convention) -> None:
    from rich.text import Text

    from onnxfix.convention.reach import obstacles, reaches

    if one.refused:
        return
    found = reaches(one)
    reached = ", ".join(str(reach) for reach in found if not reach.obstacle)
    console.print(Text("\nconverts to", "bold"))
    console.print(f"  {reached or 'no other convention of the library'}", soft_wrap=True)
    for obstacle, names in obstacles(found).items():
        console.print(Text(f"  not to {', '.join(names)}: {obstacle}", "dim"), soft_wrap=True)


def _reaches_json(one: Convention) -> dict[str, Json]:
    from onnxfix.convention.reach import reaches

    found = reaches(one)
    return {
        "converts_to": [reach.target for reach in found if not reach.obstacle],
        "obstacles": {reach.target: reach.obstacle for reach in found if reach.obstacle},
    }


def _to_json(one: Convention) -> dict[str, Json]:
    return {
        "name": one.name,
        "family": one.family,
        "description": one.description,
        "source": one.source,
        "consumer": one.consumer,
        "binds": one.binds or None,
        "successor": one.successor,
        "refused": one.refused or None,
        "needs": one.needs or None,
        "caches": [
            {
                "name": cache.name,
                "past": [str(tensor) for tensor in cache.past],
                "present": [str(tensor) for tensor in cache.present],
                "optional": cache.optional,
                "update": cache.update,
            }
            for cache in one.caches
        ],
        "inputs": [{"name": port.name, "layout": str(port.layout), "role": port.role} for port in one.inputs],
        "outputs": [{"name": port.name, "layout": str(port.layout), "role": port.role} for port in one.outputs],
    }
