"""Run the application: one line when it is up, one sentence when it cannot be, a graceful stop."""

from __future__ import annotations

import errno
import gc
import ipaddress
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import uvicorn

from fastgen_course.language.edits import RULES, load_reader
from fastgen_course.serve.app import Page, checked_prefix, make_app
from fastgen_course.serve.batching import Limits
from fastgen_course.serve.model import MODEL, ServeError, load_served

PORT = 8008
STOP_SECONDS = 10
HEADER_BYTES = 16 << 10


def serve(
    model: str = MODEL,
    host: str = "127.0.0.1",
    port: int = PORT,
    prefix: str = "",
    workers: int = 1,
    batch: int = Limits.batch,
    language_model: bool = False,
) -> None:
    """Serve the page until SIGTERM or Ctrl-C; requests under way are finished first.

    Args:
        model: as for `model.load_served`.
        host: an address of this machine; 127.0.0.1 is for this machine's own browsers alone.
        port: 0 takes a free one. The address is printed once the page can be opened.
        prefix: the path that a proxy puts before the page's own and does not take away.
        workers: ONNX Runtime sessions, one thread each.
        batch: pictures drawn in one call when many wait; 1 turns that off.
        language_model: also read edits with the pretrained language model (0.7 GB).

    Raises `ServeError`, in one sentence, for a port in use and whatever else cannot be.
    """
    prefix = checked_prefix(prefix)
    limits = Limits(batch=batch)
    listening = listen(host, port)
    try:
        torch.set_num_threads(1)  # torch only draws noise here
        served = load_served(model)
        page = Page(served, workers, limits, None if language_model else RULES)
        if language_model:
            load_reader()  # now, and not while a reader waits for an edit
        app = make_app(page, prefix)
        config = uvicorn.Config(
            app,
            http="h11",
            loop="asyncio",
            ws="none",
            access_log=False,
            log_level="error",
            server_header=False,
            h11_max_incomplete_event_size=HEADER_BYTES,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        where = f"http://{_shown(listening)}{prefix}/"
        # What was loaded stays: the collector need not look through it at every turn.
        gc.collect()
        gc.freeze()
        with stopping_quietly():
            Announced(config, f"{served.name} draws at {where} (stop with Ctrl-C)").run([listening])
    finally:
        listening.close()
    print("stopped.", flush=True)


class Announced(uvicorn.Server):
    """A server that prints a line once it answers."""

    def __init__(self, config: uvicorn.Config, line: str) -> None:
        super().__init__(config)
        self.line = line

    async def startup(self, *arguments: Any, **named: Any) -> None:
        """As uvicorn's, then the line."""
        await super().startup(*arguments, **named)
        if self.started:
            print(self.line, flush=True)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `ServeError`, in one sentence, where there can be none."""
    if not 0 <= port <= 65535:
        raise ServeError(f"--port must be 0 to 65535, got {port}.")
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ServeError(f"--host {host!r} is no address; try 127.0.0.1.") from error
    opened = socket.socket(family, kind)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows shares a port unless told not to
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(2048)
    except OSError as error:
        opened.close()
        raise ServeError(_why(error, host, port)) from error
    return opened


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use; choose another with --port, or --port 0 for a free one."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} may not be opened by this user; choose one above 1023 with --port."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine; try --host 127.0.0.1."
    return f"{host} port {port} cannot be opened ({error.strerror or error})."


def _shown(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1"  # every address of this machine; this one can be opened
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextmanager
def stopping_quietly() -> Iterator[None]:
    """uvicorn stops gracefully at a signal and then raises it again; here it ends there."""
    kinds = [signal.SIGINT, signal.SIGTERM]
    before = [signal.signal(kind, lambda *_: None) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)
