"""onnxfix rewrites the cache interface of exported ONNX models from one convention into another, and proves the result.

```python
report = onnxfix.convert("old.onnx", "new.onnx", to="optimum")
print(report.outcome, report.proof.max_abs)
```
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

# Packages and modules that bear the name of a function are loaded first: a later import cannot shadow the function.
import onnxfix.verify  # noqa: F401
from onnxfix.convert import convert
from onnxfix.errors import ExitCode, OnnxfixError
from onnxfix.proof import record, verify
from onnxfix.request import open_model, plan_conversion

if TYPE_CHECKING:
    from onnxfix.convention.convention import Convention
    from onnxfix.convention.load import load_convention
    from onnxfix.convention.plan import Edits, Plan
    from onnxfix.inspection import inspect
    from onnxfix.model.model import Model
    from onnxfix.report import ConversionReport, Outcome
    from onnxfix.verify.options import VerifyOptions
    from onnxfix.verify.report import VerifyReport
    from onnxfix.verify.trace import Trace

__version__ = "0.1.0"

__all__ = [
    "Convention",
    "ConversionReport",
    "Edits",
    "ExitCode",
    "Model",
    "OnnxfixError",
    "Outcome",
    "Plan",
    "Trace",
    "VerifyOptions",
    "VerifyReport",
    "__version__",
    "convert",
    "inspect",
    "load_convention",
    "open_model",
    "plan_conversion",
    "record",
    "verify",
]

_LAZY = {
    "ConversionReport": "onnxfix.report",
    "Convention": "onnxfix.convention.convention",
    "Edits": "onnxfix.convention.plan",
    "Model": "onnxfix.model.model",
    "Outcome": "onnxfix.report",
    "Plan": "onnxfix.convention.plan",
    "Trace": "onnxfix.verify.trace",
    "VerifyOptions": "onnxfix.verify.options",
    "VerifyReport": "onnxfix.verify.report",
    "inspect": "onnxfix.inspection",
    "load_convention": "onnxfix.convention.load",
}
"""Where each name comes from that is imported when it is first used: `onnxfix --help` must not wait for them."""


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module `onnxfix` has no attribute `{name}`")
        return getattr(importlib.import_module(_LAZY[name]), name)
