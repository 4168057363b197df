"""Independent trials on Ray: each answer is handed over as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from fastgen_course.runtimes.prompts import ScaleError
from fastgen_course.runtimes.workers import _import_ray, _running_ray

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def trials_on_ray(
    trial: Callable[[Item], Answer],
    items: Sequence[Item],
    workers: int = 2,
    address: str | None = None,
) -> Iterator[tuple[int, Answer]]:
    """(index, trial(item)) of every item, in the order in which they end.

    Args:
        trial: a function that Ray can send (what it closes over is sent once). A worker that dies
            is replaced and its trial done again, by Ray itself, three times at most.
        items: what to try.
        workers: processes, one thread each.
        address: of a running Ray cluster; None starts Ray here and ends it after.

    Raises `ScaleError` without Ray, for fewer than one worker, and for a trial that ended all its
    workers; what a trial raised comes as it was. Answers handed over before are the caller's.
    """
    if workers < 1:
        raise ScaleError(f"workers must be at least 1, got {workers}.")
    ray = _import_ray(local=address is None)
    with _running_ray(ray, workers, address):
        task = ray.remote(num_cpus=1)(lambda function, item: _one_thread(function, item))
        function = ray.put(trial)
        waiting = {task.remote(function, item): index for index, item in enumerate(items)}
        try:
            while waiting:
                (done,), _ = ray.wait(list(waiting), num_returns=1)
                try:
                    answer = ray.get(done)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayError as error:
                    raise ScaleError(
                        f"Ray failed ({type(error).__name__}); run the same command again, the "
                        "finished trials are kept."
                    ) from error
                yield waiting.pop(done), answer
        finally:
            for left in waiting:
                ray.cancel(left, force=False)


def _one_thread(function: Callable[[Item], Answer], item: Item) -> Answer:
    import torch

    torch.set_num_threads(1)
    return function(item)
