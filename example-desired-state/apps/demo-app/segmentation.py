"""Threshold and connected objects, in plain Python: small images need no more, and the app no large environment."""

from collections.abc import Sequence
from typing import TypedDict

Image = Sequence[Sequence[float]]
BINS = 256


class Measured(TypedDict):
    """One object. Area in pixels; the centre as (row, column)."""

    area: int
    centre: tuple[float, float]
    mean: float


def otsu_threshold(image: Image) -> float:
    """The value that separates dark from bright pixels best: it maximises the variance between the two groups."""
    values = [value for row in image for value in row]
    low, high = min(values), max(values)
    if low == high:
        return low
    histogram = [0] * BINS
    for value in values:
        histogram[min(BINS - 1, int((value - low) / (high - low) * BINS))] += 1
    total, weighted = len(values), sum(number * count for number, count in enumerate(histogram))
    best, best_variance, dark, dark_weighted = 0, -1.0, 0, 0
    for number, count in enumerate(histogram[:-1]):
        dark += count
        dark_weighted += number * count
        bright = total - dark
        if dark and bright:
            distance = dark_weighted / dark - (weighted - dark_weighted) / bright
            variance = dark * bright * distance * distance
            if variance > best_variance:
                best, best_variance = number, variance
    return low + (best + 1) / BINS * (high - low)


def measure_objects(image: Image, threshold: float) -> list[Measured]:
    """Objects of pixels brighter than the threshold that touch at their sides, the largest first."""
    waiting = {(r, c) for r, row in enumerate(image) for c, value in enumerate(row) if value > threshold}
    objects: list[Measured] = []
    while waiting:
        members = _grow(waiting.pop(), waiting)
        area = len(members)
        objects.append(
            {
                "area": area,
                "centre": (sum(r for r, _ in members) / area, sum(c for _, c in members) / area),
                "mean": sum(image[r][c] for r, c in members) / area,
            }
        )
    return sorted(objects, key=lambda item: (-item["area"], item["centre"]))


def _grow(seed: tuple[int, int], waiting: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """All pixels connected with the seed; they are taken out of `waiting`."""
    members, edge = [seed], [seed]
    while edge:
        row, column = edge.pop()
        for neighbour in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if neighbour in waiting:
                waiting.remove(neighbour)
                members.append(neighbour)
                edge.append(neighbour)
    return members
