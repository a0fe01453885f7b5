"""Which ports a `config.pbtxt` may name before and after a conversion, and which of them Triton mixes up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from onnxfix.convention.plan import Plan
from onnxfix.convention.signature import Port


def ports_by_name(inputs: Iterable[Port], outputs: Iterable[Port]) -> dict[tuple[bool, str], Port]:
    """Returns the ports by side (whether they are inputs) and name."""
    return {**{(True, port.name): port for port in inputs}, **{(False, port.name): port for port in outputs}}


def port_renames(plan: Plan) -> dict[tuple[bool, str], str]:
    """Returns the new names of ports that keep their layout, by side and old name."""
    inputs = {port.name for port in plan.binding.signature.inputs}
    found = {(old in inputs, old): new for old, new in plan.renames.items()}
    for cache in plan.caches:
        for is_input, route in ((True, cache.past), (False, cache.present)):
            if route is not None and route.is_rename:
                found |= {(is_input, old): new for old, new in route.renames.items()}
    return found


def few(names: Sequence[str]) -> str:
    """Returns some names, for people."""
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} ... {names[-1]} ({len(names)})"


def swapped(states: Mapping[str, str]) -> list[str]:
    """Says which states Triton feeds back to each other.

    It looks for the input of a state at the place that its output has among all outputs, both sorted by name
    (triton-inference-server/core: src/sequence_state.cc, SequenceStates::OutputState).

    >>> swapped({"channel": "channel_next", "channel_len": "channel_next_len"})
    []
    >>> swapped({"channel": "channel_next", "channel_len": "channel_len_next"})[0].partition("feed ")[2][:43]
    '`channel_len_next` to `channel`, `channel_n'

    Args:
        states: Input to output.
    """
    inputs = sorted(states, key=str.encode)
    partners = sorted(states, key=lambda name: states[name].encode())
    wrong = [f"`{states[own]}` to `{name}`" for own, name in zip(partners, inputs, strict=True) if own != name]
    if not wrong:
        return []
    return [
        "Triton pairs states by the order of their names (triton-inference-server/server#8586), and would feed "
        f"{few(wrong)}: --rename one so that inputs and outputs sort alike"
    ]
