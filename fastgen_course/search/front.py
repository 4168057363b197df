"""What is best when two things are wanted: dominance, fronts, crowding and hypervolume.

Points are (milliseconds, distance), both smaller the better.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastgen_course.models.searched import ArchitectureError

Point = tuple[float, float]


def dominates(a: Point, b: Point) -> bool:
    """Whether a is at least as good in both and better in one."""
    return a[0] <= b[0] and a[1] <= b[1] and a != b


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other dominates, from fast to slow; of equal ones the first."""
    front, least = [], float("inf")
    for index in sorted(range(len(points)), key=points.__getitem__):
        if points[index][1] < least:
            front.append(index)
            least = points[index][1]
    return front


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The share of the rectangle from (0, 0) to `reference` that is dominated by the points.

    Points beyond the reference count nothing. Raises ArchitectureError unless both of its
    coordinates are above 0.
    """
    if min(reference) <= 0:
        raise ArchitectureError(f"both coordinates of reference must be above 0, got {reference}.")
    inside = [p for p in points if p[0] < reference[0] and p[1] < reference[1]]
    area, ceiling = 0.0, reference[1]
    for index in pareto_front(inside):
        ms, distance = inside[index]
        area += (reference[0] - ms) * (ceiling - distance)
        ceiling = distance
    return area / (reference[0] * reference[1])


def nondominated_ranks(points: Sequence[Point]) -> list[int]:
    """0 for the front, 1 for the front of the rest, and so on (Deb et al. 2002)."""
    ranks, left, rank = [0] * len(points), set(range(len(points))), 0
    while left:
        front = {i for i in left if not any(dominates(points[j], points[i]) for j in left)}
        for index in front:
            ranks[index] = rank
        left -= front
        rank += 1
    return ranks


def crowding(points: Sequence[Point]) -> list[float]:
    """How much room each point of a front has: the sides of the box between its neighbours.

    The ends have infinite room, so that a front keeps its width.
    """
    room = [0.0] * len(points)
    for axis in (0, 1):
        order = sorted(range(len(points)), key=lambda i: points[i][axis])
        low, high = points[order[0]][axis], points[order[-1]][axis]
        room[order[0]] = room[order[-1]] = float("inf")
        for before, index, after in zip(order, order[1:], order[2:], strict=False):
            gap = points[after][axis] - points[before][axis]
            room[index] += gap / (high - low) if high > low else 0.0
    return room
