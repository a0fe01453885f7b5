"""What must not be told: passwords and keys, in URLs and in what libraries say of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from onnxfix.errors import UsageError

_SECRET = re.compile(r"secret|token|passw|credential|account_key|api_?key|^key$|signature|sas", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)[^/@]*:[^/]*(?=@)")
_QUERY = re.compile(r"\?[^/]*=.*", re.DOTALL)


def require_none(place: str) -> None:
    """Checks that no secrets stand in a URL: they would stand in journals and reports too, and every user sees them.

    Raises:
        UsageError: There are some.
    """
    hint = "give credentials through the environment, or through fsspec's configuration"
    shown = _QUERY.sub("?***", _PASSWORD.sub("***", place))
    if shown != place:
        raise UsageError("a URL must hold no password, key or query", where=shown, hint=hint)


def blank(text: str, options: Mapping[str, object]) -> str:
    """Returns what a library says, without the secrets that it was given.

    Args:
        text: What it says.
        options: What the file system was made with.
    """
    for secret in sorted({*_found(options), *_found(os.environ)}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _found(options: Mapping[str, object]) -> Iterator[str]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _found(value)
        elif isinstance(value, str) and len(value) >= 8 and _SECRET.search(key):
            yield value
