"""What the deployments of this app share: one idea of what a signal is."""

from collections.abc import Sequence

MAX_LENGTH = 100_000


def checked(signal: Sequence[float]) -> list[float]:
    """The signal as plain numbers. Raises ValueError when it is empty or too long."""
    if not 0 < len(signal) <= MAX_LENGTH:
        raise ValueError(f"a signal has 1 to {MAX_LENGTH} values, this one has {len(signal)}")
    return [float(value) for value in signal]


def rounded(values: Sequence[float], precision: int) -> list[float]:
    """Fit to be shown."""
    return [round(value, precision) for value in values]
