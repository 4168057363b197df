"""One visitor's connection for the load test: HTTP/1.1 with keep-alive, no more than that needs.

A full client library takes as long for a request as the server does, and on two cores that would be
measured as the server's.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """What came back: status, headers in lower case, and the JSON body."""

    status: int
    headers: dict[str, str]
    body: Any


class Connection:
    """A connection to the server at `address` (http://host:port/path/); opened when first used.

    `post` raises `ConnectionError` or ValueError for an answer that does not come or is no JSON,
    and opens a new connection the next time.
    """

    def __init__(self, address: str, patience_s: float = 30.0) -> None:
        parts = urlsplit(address)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.path, self.patience_s = parts.path, patience_s
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._drop()

    async def post(self, name: str, content: dict[str, Any]) -> Answer:
        """POST `content` as JSON to `name` below the address."""
        body = json.dumps(content).encode()
        head = (
            f"POST {self.path}{name} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(self.patience_s):
                return await self._asked(head.encode() + body)
        except (OSError, EOFError, TimeoutError) as error:
            self._drop()
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        except BaseException:
            self._drop()
            raise

    async def _asked(self, request: bytes) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self._streams
        writer.write(request)
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection", "").lower() == "close":
            self._drop()
        return Answer(int(first.split()[1]), headers, json.loads(body))

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
