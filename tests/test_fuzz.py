"""Part of what `make fuzz` does, with as many calls as there is time for."""

import fuzz_operators
import pytest


@pytest.mark.parametrize("calls, seed", [(20_000, 1000), pytest.param(100_000, 2000, marks=pytest.mark.slow)])
def test_hostile_calls_do_not_crash(calls, seed):
    outcomes = fuzz_operators.fuzz(calls, seed=seed)
    assert outcomes.total() == calls
    assert calls / 4 < outcomes["results"] < calls * 3 / 4  # both ways through the operators are taken
