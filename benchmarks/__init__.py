"""The benchmark suites of leaky_ext.

    python -m benchmarks run --quick              every suite, a minute or two; results are not kept
    python -m benchmarks run networks operators   into benchmarks/results/MACHINE.json, suite by suite
    python -m benchmarks report                   docs/benchmarks/MACHINE.md and charts, from those files
    python -m benchmarks compare A.json B.json    rows that got slower or faster

docs/performance.md says how the figures are measured and how to read them.
"""
