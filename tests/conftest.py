"""What all tests share."""

from __future__ import annotations

import signal

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

# A shell's `&` and `nohup` let what they start ignore the wish to end, and that is inherited. Programs that the tests
# start, and then tell to end, shall hear it.
for _name, _action in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    if _name in signal.Signals.__members__ and signal.getsignal(signal.Signals[_name]) is signal.SIG_IGN:
        signal.signal(signal.Signals[_name], _action)
