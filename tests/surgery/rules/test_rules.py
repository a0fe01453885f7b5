"""The rules of cancelling, as tables: first the cases in which they must not fire, then those in which they must.

The tables stand beside this module; `cases.py` says how they are read and what is checked.
"""

from __future__ import annotations

from tests.surgery.rules import shortest
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


@cases_of("identities", "stays")
def test_an_identity_is_not_applied(case: Case) -> None:
    shortest.check_stays(case)


@cases_of("identities", "goes")
def test_an_identity_is_applied(case: Case) -> None:
    shortest.check_goes(case)
