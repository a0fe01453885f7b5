"""What the source was fed and put out, as the result takes it and should put it out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from onnxfix.convention.plan import Plan
from onnxfix.errors import PlanError
from onnxfix.verify.dtypes import cast
from onnxfix.verify.header import TraceError

if TYPE_CHECKING:
    from onnxfix.convention.route import Array


def translated_inputs(inputs: Mapping[str, Array], plan: Plan) -> dict[str, Array]:
    """Returns what is fed besides the state, under the names, in the element types and with the dims of the result.

    Raises:
        TraceError: An axis that the result lacks is not of size 1.
    """
    return _translated(inputs, {port.name: port.dtype for port in plan.binding.signature.inputs}, plan)


def expected_outputs(outputs: Mapping[str, Array], plan: Plan) -> dict[str, Array]:
    """Returns what the result should put out, caches included, where the source put out this.

    Raises:
        PlanError: A cache does not fit its layout.
        TraceError: An axis that the result lacks is not of size 1.
    """
    states = set(plan.binding.pairs.values())
    dtypes = {port.name: port.dtype for port in plan.binding.signature.outputs}
    ordinary = {name: array for name, array in outputs.items() if name not in states}
    return {**_translated(ordinary, dtypes, plan), **plan.run_present(outputs)}


def _translated(arrays: Mapping[str, Array], dtypes: Mapping[str, str], plan: Plan) -> dict[str, Array]:
    translated = {}
    for name, array in arrays.items():
        new = plan.renames.get(name, name)
        converted = cast(array, dtypes[name], plan.casts.get(new, dtypes[name]))
        try:
            translated[new] = plan.unit_axes[new].run(converted) if new in plan.unit_axes else converted
        except PlanError as error:
            raise TraceError(error.message, where=name) from None
    return translated
