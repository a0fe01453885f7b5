"""What libraries tell others of the models that they see: nothing, unless the user lets them."""

from __future__ import annotations

import os

VARIABLE = "ORT_DISABLE_TELEMETRY"
"""What ONNX Runtime looks at once, when it is loaded."""


def decline() -> None:
    """Lets ONNX Runtime report nothing, and leave nothing behind; what the environment says already holds.

    From 1.29 on, official builds for Linux and macOS send events on each session to Microsoft by default, and keep an
    identifier of the machine and what is not sent yet in the user's cache folder (microsoft/onnxruntime, pull request
    27379).
    """
    os.environ.setdefault(VARIABLE, "1")
