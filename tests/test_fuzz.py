"""A short run of `make fuzz`."""

import fuzz_operators
import pytest


@pytest.mark.parametrize("calls, seed", [(20_000, 1000), pytest.param(100_000, 2000, marks=pytest.mark.slow)])
def test_hostile_calls_do_not_crash(calls, seed):
    outcomes = fuzz_operators.fuzz(calls, seed=seed)
    assert outcomes.total() == calls
    results = {name: count for name, count in outcomes.items() if name.startswith("results of ")}
    assert len(results) == len(fuzz_operators.operators()) == 7
    # Both ways through every operator are taken, each of which is called about calls / 7 times.
    assert all(calls / 100 < count < calls / 6 for count in results.values()), results
