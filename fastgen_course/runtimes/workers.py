"""Workers on Ray that draw shards: one each at a time, replaced when they die.

Ray starts the processes, on this machine or on a cluster of them, and tells when one dies. What is
left to decide is small, because a task is *idempotent*: a shard is drawn from its own seeds and
appears in the folder whole or not at all, so that "do it again" answers every fault. The workers
write the pictures; on several machines the folder must therefore lie on a disk that all of them
share.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import torch

from fastgen_course.runtimes.prompts import ScaleError
from fastgen_course.runtimes.samplers import Load, Sampler, check_device, load_sampler
from fastgen_course.runtimes.shards import (
    Job,
    Shard,
    draw_shard,
    write_shard,
)
from fastgen_course.timing import measure_once

TRIES = 3  # a shard that ends so many workers is not given to another
STARTS = 2  # Ray waits half a minute for itself; on a busy machine the second start is quicker
_RAY_STORE_BYTES = 80 << 20  # Ray's minimum is 75 MiB; results are a few bytes
INSTALL = 'python -m pip install -c constraints.txt -e ".[scale]"'


@dataclass(frozen=True)
class Drawn:
    """One finished shard: who drew it (process id), and when (seconds since the epoch)."""

    index: int
    images: int
    pid: int
    began: float
    ended: float


class _Worker:
    """The worker's side: a sampler, loaded once, and shards drawn into a folder."""

    def __init__(self, load: Load, model: str, device: str, threads: int, data: str | None) -> None:
        self.load, self.model, self.device, self.threads = load, model, device, threads
        self.sample: Sampler | None = None
        if data is not None:  # Ray's processes were started with the environment of that moment
            os.environ["FASTGEN_DATA"] = data

    def ready(self) -> int:
        """Load the sampler; the process id. What goes wrong is raised to the driver as it is."""
        if self.sample is None:
            torch.set_num_threads(self.threads)
            self.sample = self.load(self.model, self.device)
        return os.getpid()

    def draw(self, job: Job, shard: Shard, folder: str, dry: bool) -> Drawn:
        """Draw one shard into the folder; `dry` leaves out all the work."""
        began = time.time()
        if not dry:
            self.ready()
            with torch.inference_mode():
                write_shard(Path(folder), job, shard, draw_shard(self.sample, job, shard))
        return Drawn(shard.index, len(shard.captions), os.getpid(), began, time.time())


@dataclass
class _Slot:
    """A place for a worker: the actor in it, and the shard it has in hand."""

    actor: Any
    task: Any = None
    shard: Shard | None = None


class WorkerPool:
    """Workers on Ray, ready to draw; use it with `with`.

    Args:
        workers: how many, each a process of its own.
        model: shipped weights, or a name for what `load` gives.
        device: "cpu", or "cuda", where the workers share the GPUs evenly.
        threads: of each worker; more than one each is slower when they share the cores.
        address: of a running Ray cluster ("auto" finds one); None starts Ray here.
        load: `load(model, device) -> sample`, called once in each worker.

    Attributes: the arguments; `pids`, the workers' process ids at the start; `start_ms`, what
    starting took.

    Raises `ScaleError` without Ray, or for a device or a number of workers that cannot be.
    """

    def __init__(
        self,
        workers: int = 2,
        model: str = "generator_base",
        *,
        device: str = "cpu",
        threads: int = 1,
        address: str | None = None,
        load: Load = load_sampler,
    ) -> None:
        if workers < 1 or threads < 1:
            raise ScaleError(f"it takes a worker and a thread, got {workers} and {threads}.")
        self.ray = _import_ray(local=address is None)
        self.workers, self.address, self.model, self.load = workers, address, model, load
        self.device = check_device(device) if address is None else device
        self._arguments = (load, model, self.device, threads, os.environ.get("FASTGEN_DATA"))
        self.slots: list[_Slot] = []
        self.pids: list[int] = []
        self.start_ms = 0.0

    def __enter__(self) -> WorkerPool:
        self._ray = _running_ray(self.ray, self.workers, self.address)
        self.start_ms, _ = measure_once(self._start, device="cpu")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        for slot in self.slots:
            with suppress(self.ray.exceptions.RayError):
                self.ray.kill(slot.actor)
        self.slots = []
        self._ray.__exit__(kind, error, trace)

    def _start(self) -> None:
        self._ray.__enter__()
        try:
            self.slots = [_Slot(self._hire()) for _ in range(self.workers)]
            self.pids = self.ray.get([slot.actor.ready.remote() for slot in self.slots])
        except self.ray.exceptions.RayTaskError as error:
            self.__exit__()
            raise error.cause from None
        except BaseException:
            self.__exit__()
            raise

    def _hire(self) -> Any:
        gpus = 0.0
        if self.device == "cuda":
            here = torch.cuda.device_count() if self.address is None else self.workers
            gpus = min(1.0, here / self.workers)
        actor = self.ray.remote(_Worker).options(num_cpus=1, num_gpus=gpus)
        return actor.remote(*self._arguments)

    def draw(
        self,
        job: Job,
        shards: Iterator[Shard],
        folder: Path | str,
        on_shard: Callable[[Drawn], None] = lambda drawn: None,
        *,
        only: int | None = None,
        dry: bool = False,
    ) -> int:
        """Draw the shards into the folder, each worker one at a time; how many workers were lost.

        A worker that dies is replaced and its shard drawn again. `shards` is read as workers come
        free, never ahead. `on_shard` is told of each finished shard. `only` so many of the workers
        are used. `dry` hands the shards out and draws nothing: what is left is the driver's own
        work, the serial part of a run.

        Raises what a sampler or a disk raised, or `ScaleError` for a shard that ends `TRIES`
        workers; the shards in hand are finished first and kept.
        """
        ray, again, tries = self.ray, deque[Shard](), Counter[int]()
        shards, lost, fault = iter(shards), 0, None
        while True:
            for slot in self.slots[:only]:
                if slot.task is None and fault is None:
                    slot.shard = again.popleft() if again else next(shards, None)
                    if slot.shard is not None:
                        slot.task = slot.actor.draw.remote(job, slot.shard, str(folder), dry)
            busy = {slot.task: slot for slot in self.slots if slot.task is not None}
            if not busy:
                break
            (task,), _ = ray.wait(list(busy), num_returns=1)
            slot = busy[task]
            slot.task = None
            try:
                on_shard(ray.get(task))
            except ray.exceptions.RayTaskError as error:
                fault = error.cause
            except ray.exceptions.RayActorError:
                lost += 1
                tries[slot.shard.index] += 1
                if tries[slot.shard.index] < TRIES:
                    again.append(slot.shard)
                else:
                    fault = ScaleError(
                        f"shard {slot.shard.index} ended {TRIES} workers (too little memory?); "
                        "the finished shards are kept."
                    )
                slot.actor = self._hire()
            except ray.exceptions.RayError as error:
                fault = ScaleError(
                    f"Ray failed ({type(error).__name__}); run the same command again, the "
                    "finished shards are kept."
                )
        if fault is not None:
            raise fault
        return lost


def _import_ray(local: bool) -> Any:
    # Read when Ray is imported: no reports of use, and no word about GPUs where there are none.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if local:
        # As on Windows and macOS: Ray stays on loopback. Without it, Ray takes a node address of
        # 127.0.0.1 for a slip and listens where the network reaches it.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        raise ScaleError(f"many workers need Ray; install it with `{INSTALL}`.") from error
    return ray


@contextmanager
def _running_ray(ray: Any, workers: int, address: str | None) -> Iterator[None]:
    """Ray, started quietly on this machine alone, or joined; one that runs already is left so."""
    if ray.is_initialized():
        _check_room(ray, workers)
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError) as error:
            raise ScaleError(f"no Ray cluster answers at {address!r}; is it started?") from error
        try:
            _check_room(ray, workers)
            yield
        finally:
            ray.shutdown()
        return
    places: list[str] = []
    try:
        for left in range(STARTS - 1, -1, -1):
            places.append(_short_folder())
            try:
                ray.init(
                    address="local",  # never one that happens to run here
                    num_cpus=workers,  # a claim, not a core: more workers than cores may be asked
                    include_dashboard=False,
                    object_store_memory=_RAY_STORE_BYTES,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=places[-1],
                    **quiet,
                )
                break
            except Exception as error:  # Ray raises no narrower one, as when it waited too long
                _end_what_uses(places[-1])
                if left:
                    continue
                why = str(error).split(". ")[0].rstrip(".") or type(error).__name__
                raise ScaleError(
                    f"Ray did not start here ({why}); try again when the machine is less busy."
                ) from error
        yield
    finally:
        ray.shutdown()
        for place in places:
            shutil.rmtree(place, ignore_errors=True)


def _short_folder() -> str:
    """A new folder for Ray's sockets and logs; those that killed drivers left are removed.

    A socket's path may have about 100 characters, of which Ray takes 70.
    """
    base = Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())
    for left in base.glob("fg-*-*"):
        pid = left.name.split("-")[1]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"fg-{os.getpid()}-", dir=base)


def _end_what_uses(place: str) -> None:
    """End the processes of a Ray that did not come up: it no longer knows them itself."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any(place in argument for argument in child.cmdline()):
                child.kill()


def _check_room(ray: Any, workers: int) -> None:
    """A worker without a CPU to claim would be waited for without end."""
    room = int(ray.cluster_resources().get("CPU", 0))
    if room < workers:
        raise ScaleError(f"the Ray that is running has {room} CPUs, too few for {workers} workers.")
