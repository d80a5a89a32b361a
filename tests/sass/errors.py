"""Why a case fails."""


class Wrong(Exception):
    """A result differs from the formulas, or a limit is exceeded."""


class Fault(Exception):
    """The kernel, or its host code, did something forbidden."""


class Unsupported(Exception):
    """The kernel uses a feature that the emulator lacks."""
