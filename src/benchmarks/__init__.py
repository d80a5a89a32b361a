"""The benchmark suite of leaky_ext.

    python -m benchmarks run --quick      a minute, results are not kept
    python -m benchmarks run --full       what benchmarks/results/ holds, one file for each device
    python -m benchmarks report           tables, charts and the README's figures from those files
    python -m benchmarks compare A.json B.json

docs/performance.md says how the figures are taken and how to read them.
"""
