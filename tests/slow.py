"""Parameters of which `make test` takes some and `make test-all` takes all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(values: Iterable[Any], *fast: Any) -> list[Any]:
    """Marks all values slow, but for these."""
    return [value if value in fast else pytest.param(value, marks=pytest.mark.slow) for value in values]
