"""TOML as people write it: read value by value, every error with the file and the path of the key.

Conventions are read with it (`my.toml: cache[0].past`), and the rules of a zoo (`onnxfix.toml: rule[2].sizes.head`).
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from onnxfix.errors import UsageError

Table: TypeAlias = Mapping[str, object]


def read_text(path: Path, what: str, error: type[UsageError] = UsageError) -> str:
    """Returns the text of a file.

    Args:
        path: The file.
        what: What it should hold, for errors: `the convention`.
        error: The kind of error to raise.

    Raises:
        UsageError: It cannot be read, or is no text in UTF-8.
    """
    where = str(path)
    try:
        # A pipe would be waited for.
        if path.exists() and not path.is_file():
            raise error("this is no regular file", where=where, hint=f"write {what} into a file first")
        return path.read_text(encoding="utf-8-sig")
    except OSError as problem:
        hint = "look at its name" if isinstance(problem, FileNotFoundError) else "see that it may be read"
        raise error(f"{what} cannot be read: {problem.strerror}", where=where, hint=hint) from None
    except UnicodeDecodeError:
        raise error(f"{what} is no UTF-8 text", where=where) from None
    except ValueError as problem:
        raise error(f"{what} cannot be read: {problem}", where=where) from None


def read_table(text: str, where: str, error: type[UsageError] = UsageError) -> Table:
    """Returns what a TOML text holds.

    Raises:
        UsageError: It is no TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise error(f"this is no TOML: {problem}", where=where) from None
    except RecursionError:
        raise error("this TOML nests too deeply", where=where) from None


class TableReader:
    """Takes values out of TOML tables.

    Attributes:
        error: The kind of error that it raises.
        file: What the file is called in errors.
    """

    error: type[UsageError] = UsageError

    def __init__(self, file: str) -> None:
        self.file = file

    def place(self, path: str) -> str:
        """Returns where a key stands, for errors."""
        return f"{self.file}: {path}" if path else self.file

    def fail(self, message: str, path: str, hint: str = "") -> UsageError:
        """Returns an error at a key."""
        return self.error(message, where=self.place(path), hint=hint)

    def allow(self, table: Table, keys: Collection[str], path: str) -> None:
        """Refuses keys that nobody knows."""
        for key in table:
            if key not in keys:
                close = difflib.get_close_matches(key, keys, n=1)
                hint = f"did you mean `{close[0]}`?" if close else f"known are {', '.join(sorted(keys))}"
                raise self.fail("this key is not known here", join(path, key), hint)

    def string(self, table: Table, key: str, path: str, default: str | None = None) -> str:
        """Returns a string; without a default it must be there, and not be empty."""
        value = table.get(key, default)
        if value is None:
            raise self.fail("this key is missing", join(path, key))
        if not isinstance(value, str):
            raise self.fail("a string is expected here", join(path, key))
        if not value and default is None:
            raise self.fail("this string is empty", join(path, key))
        return value

    def choice(self, table: Table, key: str, path: str, choices: Collection[str], kind: str) -> str:
        """Returns a string out of a few; empty where there is none."""
        value = self.string(table, key, path, "")
        if value and value not in choices:
            raise self.fail(f"`{value}` is no {kind}", join(path, key), f"known are {', '.join(choices)}")
        return value

    def strings(self, table: Table, key: str, path: str) -> tuple[str, ...]:
        """Returns a string, or a list of strings."""
        value = table.get(key, [])
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
            raise self.fail("a string or a list of strings is expected here", join(path, key))
        return tuple(str(text) for text in values)

    def flag(self, table: Table, key: str, path: str) -> bool:
        """Returns true or false; false where there is nothing."""
        value = table.get(key, False)
        if not isinstance(value, bool):
            raise self.fail("true or false is expected here", join(path, key))
        return value

    def table(self, table: Table, key: str, path: str = "") -> Table:
        """Returns a table; an empty one where there is none."""
        value = table.get(key, {})
        if not isinstance(value, dict):
            raise self.fail(f"a table is expected here: [{join(path, key)}]", join(path, key))
        return value

    def tables(self, table: Table, key: str) -> Sequence[Table]:
        """Returns an array of tables."""
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.fail(f"tables are expected here: [[{key}]]", key)
        return value

    def texts(self, table: Table, key: str, path: str) -> dict[str, str]:
        """Returns a table of strings."""
        found = {}
        for name, text in self.table(table, key, path).items():
            if not isinstance(text, str):
                raise self.fail("a string is expected here", f"{join(path, key)}.{name}")
            found[name] = text
        return found

    def number(self, table: Table, key: str, path: str) -> int | None:
        """Returns a whole number; None where there is none."""
        value = table.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise self.fail("a whole number is expected here", join(path, key))
        return value

    def distinct(self, names: Sequence[str], path: str, key: str) -> None:
        """Refuses names that stand twice."""
        for index, name in enumerate(names):
            if name in names[:index]:
                raise self.fail(f"`{name}` stands twice", join(f"{path}[{index}]", key) if key else path)


def join(path: str, key: str) -> str:
    """Returns the path of a key in a table."""
    return f"{path}.{key}" if path else key
