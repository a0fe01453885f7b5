"""The page of conventions is made from the library, and says all that stands there."""

from __future__ import annotations

import runpy
from pathlib import Path

from onnxfix.convention.catalogue import catalogue

DOCS = Path(__file__).parents[1] / "docs"
MADE: str = runpy.run_path(str(DOCS / "make_conventions.py"))["page"]()


def test_every_convention_has_its_section() -> None:
    for one in catalogue():
        _, _, section = MADE.partition(f"\n### {one.name}\n")
        section = section.partition("\n#")[0]
        assert f"\n{one.description}.\n" in section
        for cache in one.caches:
            assert all(str(tensor.template) in section for tensor in (*cache.past, *cache.present))
        for text in (one.source, one.consumer, one.successor, one.refused, one.needs):
            assert (text or "") in section


def test_lines_are_whole() -> None:
    assert MADE.endswith("\n")
    assert not [line for line in MADE.splitlines() if line.rstrip() != line]
    assert MADE.count("```") % 2 == 0


def test_the_page_is_current() -> None:
    page = (DOCS / "conventions.md").read_text(encoding="utf-8")
    assert page == MADE, "the library has changed: run `python docs/make_conventions.py` and commit docs/conventions.md"
