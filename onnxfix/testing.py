"""For test suites: `assert_equivalent(original, converted)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from onnxfix.errors import VerifyError
from onnxfix.proof import verify

if TYPE_CHECKING:
    from onnxfix.convention.plan import Edits
    from onnxfix.request import Source, Speech
    from onnxfix.verify.options import VerifyOptions
    from onnxfix.verify.report import DifferenceError, VerifyReport


def assert_equivalent(
    original: Source,
    converted: Source,
    *,
    to: Speech | None = None,
    from_: Speech | None = None,
    sizes: Mapping[str, int] | None = None,
    edits: Edits | None = None,
    options: VerifyOptions | None = None,
) -> VerifyReport:
    """Asserts that two models put out the same over a stream, and that this proves something; see `onnxfix.verify`.

    ```python
    def test_the_released_model():
        assert_equivalent("old.onnx", "new.onnx", options=VerifyOptions(ticks=60))
    ```

    Raises:
        AssertionError: They differ, cannot be driven, or nothing is proven; with all outputs that differ.
        OnnxfixError: A model cannot be read, or its convention is not known.
    """
    __tracebackhide__ = True  # pytest shows the line of the test
    from onnxfix.verify.report import DifferenceError

    try:
        return verify(original, converted, to=to, from_=from_, sizes=sizes, edits=edits, options=options)
    except DifferenceError as error:
        raise AssertionError("\n".join((str(error), *_differences(error)))) from None
    except VerifyError as error:
        raise AssertionError(str(error)) from None


def _differences(error: DifferenceError) -> list[str]:
    from onnxfix.verify.render.verdict import Verdict, needed_text, place_text

    rows = Verdict(error.report.source, error.report.result, error.report, error).rows
    return [
        f"{row.name}: {place_text(row.port)}; would have passed: {needed_text(row.port)}"
        for row in rows
        if row.port.mismatched
    ]
