"""The rules of cancelling, as tables: first the cases in which they must not fire, then those in which they must.

The tables stand beside this module; `cases.py` says how they are read and what is checked.
"""

from __future__ import annotations

from tests.surgery.rules import shortest
from tests.surgery.rules.cases import Case, cases_of, check_goes, check_stays, model_of, read_case, rewritten, source_of


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


def test_a_size_is_known_where_a_part_that_is_asked_for_its_own_is_cut_at_it() -> None:
    """`w` is asked for its size, so it is made; and it is cut at a bound that comes of the size of the cache."""
    window = "s = Shape(att) t = Gather(s, v2) u = Sub(t, v1) w = Slice(att, u, vmax, v2)"
    rest = "r = Shape(w) d = Gather(r, v2) f = Cast <to = 1> (d) b = Slice(att, v4, v8, v3) y = Mul(b, f)"
    case = read_case(f"a bound | packed | {window} {rest} | -")

    _, report = rewritten(case, source=source_of(model_of(case)))

    assert report.refused == ("the whole shape of w is needed",)
