"""The rules of cancelling, as tables: first the cases in which they must not fire, then those in which they must.

The tables stand beside this module; `cases.py` says how they are read and what is checked.
"""

from __future__ import annotations

from tests.surgery.rules.cases import Case, cases_of, check_goes, check_stays


@cases_of("operators", "stays")
def test_an_operator_stays(case: Case) -> None:
    check_stays(case)


@cases_of("operators", "goes")
def test_an_operator_goes(case: Case) -> None:
    check_goes(case)


@cases_of("graphs", "stays")
def test_a_cache_stays(case: Case) -> None:
    check_stays(case)


@cases_of("graphs", "goes")
def test_a_cache_goes(case: Case) -> None:
    check_goes(case)
