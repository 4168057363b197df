"""The web application: the page, `draw`, `edit`, and a sentence for everything else."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from fastgen_course.datasets.captions import CaptionError, encode_words
from fastgen_course.language.caption_edit import edit_caption
from fastgen_course.language.edits import MODEL, RULES
from fastgen_course.serve.batching import Batcher, Limits, Overloaded
from fastgen_course.serve.model import Served, ServeError, pictures
from fastgen_course.serve.page_files import KINDS, page_files, told_by_server
from fastgen_course.serve.wire import (
    MAX_BODY_BYTES,
    MAX_PICTURES,
    DrawRequest,
    EditRequest,
    Refusal,
    read_draw,
    read_edit,
)
from fastgen_course.timing import Stopwatch

BODY_SECONDS = 10.0
# A body that is too large is still read so far, or its sender never gets to read the answer.
PATIENT_BYTES = 1 << 20
EDITS_WAITING = 16
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
log = logging.getLogger(__name__)


class Page:
    """The application's state and its answers.

    Args:
        served: the model.
        workers: ONNX Runtime sessions, one thread each.
        limits: of the queue.
        road: who reads edits: RULES, or None for the rules and, about words that they do not know,
            the language model.
    """

    def __init__(
        self,
        served: Served,
        workers: int = 1,
        limits: Limits | None = None,
        road: str | None = RULES,
    ) -> None:
        if workers < 1:
            raise ServeError(f"workers must be at least 1, got {workers}.")
        self.served, self.road = served, road
        self.batcher = Batcher([served.session() for _ in range(workers)], limits)
        reads = RULES if road == RULES else f"{RULES} and a {MODEL}"
        self.files = page_files(told_by_server(served, reads))
        self._editing = 0

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Workers run while the server does."""
        self._editors = ThreadPoolExecutor(1, thread_name_prefix="edit")
        self.batcher.start()
        try:
            yield
        finally:
            await self.batcher.close()
            self._editors.shutdown()

    def routes(self) -> list[Route]:
        """The page's addresses, all relative to where it is mounted."""
        return [
            Route("/", self.index, methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/draw", self.draw, methods=["POST"]),
            Route("/edit", self.edit, methods=["POST"]),
            Route("/{name}", self.file, methods=["GET"]),
        ]

    async def index(self, _request: Request) -> Response:
        """The page."""
        return self._sent("index.html")

    async def file(self, request: Request) -> Response:
        """One of the page's files."""
        name = request.path_params["name"]
        if name in ("draw", "edit"):
            raise HTTPException(405, headers={"Allow": "POST"})
        if name not in self.files:
            raise HTTPException(404)
        return self._sent(name)

    def _sent(self, name: str) -> Response:
        kind = KINDS["." + name.rpartition(".")[2]]
        headers = {"Content-Type": kind, "Cache-Control": "no-cache", **HEADERS}
        return Response(self.files[name], headers=headers)

    async def health(self, _request: Request) -> Response:
        """Whether it lives, and what it has done."""
        b = self.batcher
        counts = {"waiting": b.waiting, "drawn": b.drawn, "refused": b.refused}
        return answer({"status": "ok", "model": self.served.name, **counts})

    async def draw(self, request: Request) -> Response:
        """Pictures of a caption: see `wire.DrawRequest`."""
        watch = Stopwatch()
        asked = read_draw(await body_of(request))
        try:
            drawn = await self.batcher.draw(self.served.noise(asked.seeds), words_of(asked))
        except Overloaded as error:
            raise busy("too many pictures are waiting already", error.retry_after_s) from error
        sent = [
            {"seed": seed, "png": base64.b64encode(png(picture)).decode()}
            for seed, picture in zip(asked.seeds, pictures(drawn.images), strict=True)
        ]
        times = {
            "wait_ms": round(drawn.wait_ms, 3),
            "model_ms": round(drawn.model_ms, 3),
            "batch": drawn.batch,
            "server_ms": round(watch.ms, 3),
        }
        return answer({"caption": asked.caption, "pictures": sent, **times})

    async def edit(self, request: Request) -> Response:
        """A caption changed by a request in words: see `wire.EditRequest`."""
        watch = Stopwatch()
        asked = read_edit(await body_of(request))
        if self._editing >= EDITS_WAITING:
            raise busy("too many edits are waiting already", 1)
        self._editing += 1
        try:
            loop = asyncio.get_running_loop()
            done = await loop.run_in_executor(self._editors, self._edited, asked)
        except CaptionError as error:
            raise Refusal(422, " ".join(str(error).split())) from error
        finally:
            self._editing -= 1
        said = {"caption": done.caption, "note": done.note, "answered_by": done.answered_by}
        changed = done.after != done.before
        return answer({**said, "changed": changed, "server_ms": round(watch.ms, 3)})

    def _edited(self, asked: EditRequest) -> Any:
        return edit_caption(asked.caption, asked.request, road=self.road)


def make_app(page: Page, prefix: str = "") -> Starlette:
    """The application of `page`, at the root and, for a proxy that keeps it, below `prefix`.

    Raises `ServeError` for a prefix that is no path.
    """
    routes: list[Route | Mount] = []
    if prefix := checked_prefix(prefix):

        async def slash(_request: Request) -> Response:
            # Relative, so that it holds behind any proxy: the page's own addresses need the slash.
            return Response(status_code=307, headers={"Location": prefix.rpartition("/")[2] + "/"})

        routes += [Route(prefix, slash), Mount(prefix, routes=page.routes())]
    handlers = {Refusal: refused, HTTPException: wrong_address, Exception: failed}
    return Starlette(
        routes=[*routes, *page.routes()], lifespan=page.lifespan, exception_handlers=handlers
    )


def checked_prefix(prefix: str) -> str:
    """`prefix` with a slash before and none behind. Raises `ServeError` for what is no path."""
    inner = prefix.strip("/")
    if not inner:
        return ""
    if not all(part and part.replace("-", "").replace("_", "").replace(".", "").isalnum()
               and part.isascii() for part in inner.split("/")):  # fmt: skip
        raise ServeError(
            f"--prefix must be a path of letters, digits and -_., such as /course, got {prefix!r}."
        )
    return f"/{inner}"


async def body_of(request: Request) -> bytes:
    """The request's body. Raises `Refusal` 415, 413 or 408."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # A page of another site cannot send this type without asking first, and is not let.
    if kind != "application/json":
        raise Refusal(415, "send the request as JSON, with Content-Type: application/json.")
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                size += len(piece)
                if size <= MAX_BODY_BYTES:
                    body += piece
                if size > PATIENT_BYTES:
                    break
    except TimeoutError as error:
        sentence = f"the request did not arrive within {BODY_SECONDS:.0f} s; send it again."
        raise Refusal(408, sentence) from error
    except ClientDisconnect as error:
        raise Refusal(400, "the request broke off; send it again.") from error
    if size > MAX_BODY_BYTES:
        raise Refusal(
            413, f"the request is too large; keep it under {MAX_BODY_BYTES:,} bytes, a caption of "
            f"20 words and at most {MAX_PICTURES} pictures."
        )  # fmt: skip
    return bytes(body)


def words_of(asked: DrawRequest) -> Any:
    """The caption's words, a row a picture: int64 (n, L)."""
    return encode_words([asked.caption] * asked.count).numpy()


def png(picture: Any) -> bytes:
    """A picture, uint8 (H, W, 3), as the bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def answer(value: dict[str, Any], status: int = 200, **headers: str) -> Response:
    """JSON in ASCII: a caption may hold what UTF-8 has no bytes for."""
    kind = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}
    sent = {**kind, "Cache-Control": "no-store", **headers}
    return Response(json.dumps(value), status_code=status, headers=sent)


def busy(what: str, retry_after_s: int) -> Refusal:
    """The 429 of a full queue."""
    sentence = f"the server is busy, {what}; come again in {retry_after_s} s."
    return Refusal(429, sentence, retry_after_s)


async def refused(_request: Request, error: Refusal) -> Response:
    """A refusal's status and sentence."""
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else {}
    return answer({"error": error.sentence}, error.status, **headers)


async def wrong_address(request: Request, error: HTTPException) -> Response:
    """What is not there, or not by this method."""
    said = {
        404: "there is nothing at this address; the page is at ./, pictures at draw.",
        405: f"{request.method} is not for this address; POST to draw and edit, GET the rest.",
    }
    headers = dict(error.headers or {})
    sentence = said.get(error.status_code, str(error.detail))
    return answer({"error": sentence}, error.status_code, **headers)


async def failed(_request: Request, error: Exception) -> Response:
    """A fault of ours, logged, and told without its insides."""
    log.error("a request failed", exc_info=error)
    sentence = "the server failed to answer; try again, and look at what it printed if it fails."
    return answer({"error": sentence}, 500)
