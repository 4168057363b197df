"""The ending that every module of records shares: run the recorders that the command line names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Recorders = Mapping[str, Callable[[], None]]


def run_recorders(
    names: Sequence[str], recorders: Recorders, on_request: Recorders | None = None
) -> int:
    """Run the named recorders, all of `recorders` without a name; 2 for an unknown one.

    `on_request` holds those that run only when named.
    """
    known = {**recorders, **(on_request or {})}
    for name in names:
        if name not in known:
            print(f"error: there is no recorder {name!r}; choose from {', '.join(known)}.")
            return 2
    for name in names or recorders:
        known[name]()
    return 0
