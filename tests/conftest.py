"""What all tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

# The same examples at every run, and no clock: a test fails because of the code or not at all. Examples are short
# sentences; to make them shorter still would take minutes.
settings.register_profile(
    "steady",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=50,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.large_base_example],
)
settings.load_profile("steady")
