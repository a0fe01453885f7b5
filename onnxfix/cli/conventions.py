"""`onnxfix conventions [NAME]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxfix.cli.options import json_option

if TYPE_CHECKING:
    from onnxfix.convention.convention import CacheSpec, Convention
    from onnxfix.report import Json


@click.command()
@click.argument("name", required=False)
@click.option("--toml", "as_toml", is_flag=True, help="Print NAME as a TOML file, to be changed and given to --to.")
@json_option
def conventions(name: str | None, as_toml: bool, as_json: bool) -> None:
    """List the conventions that onnxfix knows, or show what NAME (a name or a TOML file) says."""
    from onnxfix.cli.console import print_json, results
    from onnxfix.convention.load import library, load_convention
    from onnxfix.convention.writing import to_toml
    from onnxfix.errors import UsageError

    known = [load_convention(name)] if name else list(library().values())
    if as_toml:
        if name is None:
            raise UsageError("which convention?", where="--toml", hint="onnxfix conventions NAME --toml")
        results().out(to_toml(known[0]).rstrip(), highlight=False)
    elif as_json:
        print_json(_to_json(known[0]) if name else [_to_json(one) for one in known])
    elif name:
        _show_one(known[0])
    else:
        _show_all(known)


def _show_all(known: list[Convention]) -> None:
    from rich.table import Table
    from rich.text import Text

    from onnxfix.cli.console import print_table, results

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in known:
        table.add_row(Text(one.name, "bold"), one.description)
        for cache in one.caches:
            for tensor in cache.past:
                table.add_row("", Text(str(tensor), "cyan"))
    print_table(results(), table)


def _show_one(one: Convention) -> None:
    from rich.text import Text

    from onnxfix.cli.console import results

    console = results()
    console.print(Text(one.name, "bold"), soft_wrap=True)
    console.print(f"  {one.description}", soft_wrap=True)
    if one.source:
        console.print(f"  source: {one.source}", soft_wrap=True)
    if one.successor:
        console.print(f"  replaced by: {one.successor}", soft_wrap=True)
    for cache in one.caches:
        extra = ", ".join(text for text in ("optional" if cache.optional else "", cache.update or "") if text)
        console.print(Text().append(f"\ncache {cache.name}", "bold").append(f" ({extra})" if extra else ""))
        for sentence in _sentences(cache):
            console.print(Text(f"  {sentence}", "cyan"), soft_wrap=True)
    for kind, ports in (("inputs", one.inputs), ("outputs", one.outputs)):
        if ports:
            console.print(Text(f"\nother {kind}", "bold"))
        for port in ports:
            extra = " (optional)" if port.optional else ""
            dtype = f" {port.dtype}" if port.dtype else ""
            text = f"{port.name}: {port.layout}" if port.layout.items else port.name
            console.print(Text().append(f"  {text}", "cyan").append(f"{dtype}, {port.role}{extra}"), soft_wrap=True)


def _sentences(cache: CacheSpec) -> list[str]:
    """Returns what a user would write after `--to`."""
    if not cache.present:
        return [str(past) for past in cache.past]
    sentences = []
    for past, present in zip(cache.past, cache.present, strict=True):
        if past.layout == present.layout:
            sentences.append(f"{past.template} -> {present.template}: {past.layout}")
        else:
            sentences += [str(past), f"-> {present}"]
    return sentences


def _to_json(one: Convention) -> dict[str, Json]:
    return {
        "name": one.name,
        "description": one.description,
        "source": one.source,
        "successor": one.successor,
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
