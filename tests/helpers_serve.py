"""What the tests of the serving page share: tiny models, a server, the page's scripts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from fastgen_course.datasets.captions import VOCABULARY, encode_words
from fastgen_course.runtimes.onnx_export import export_onnx
from fastgen_course.serve.page_files import FOLDER, grammar

ROOT = Path(__file__).resolve().parents[1]
CAPTION = "a red boot on a white background"


@dataclass(frozen=True)
class TinyConfig:
    """The one size that the page asks a generator for."""

    noise: int = 20


class TinyGenerator(nn.Module):
    """Noise and words in, picture out: the signature of GENERATOR_BASE."""

    def __init__(self) -> None:
        super().__init__()
        self.config = TinyConfig()
        self.words = nn.Embedding(len(VOCABULARY), 4)
        self.out = nn.Linear(20 + 4, 3 * 28 * 28)

    def forward(self, noise: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        y = torch.cat([noise, self.words(words).mean(1)], 1)
        return torch.tanh(self.out(y)).unflatten(1, (3, 28, 28))


class SlowGenerator(TinyGenerator):
    """The same after convolutions that draw nothing: a few ms a picture on one thread."""

    def __init__(self) -> None:
        super().__init__()
        self.work = nn.Conv2d(64, 64, 3, padding=1)

    def forward(self, noise: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        images = super().forward(noise, words)
        x = images.repeat(1, 22, 1, 1)[:, :64]
        for _ in range(6):
            x = torch.tanh(self.work(x))
        return images + 0.001 * x[:, :3]


def export_slow(path: Path) -> Path:
    """A generator of a few ms a picture as an ONNX file."""
    torch.manual_seed(0)
    export_onnx(SlowGenerator(), (torch.zeros(2, 20), encode_words([CAPTION] * 2)), path)
    return path


def export_tiny(path: Path) -> Path:
    """A tiny generator as an ONNX file, the same at every call."""
    torch.manual_seed(0)
    export_onnx(TinyGenerator(), (torch.zeros(2, 20), encode_words([CAPTION] * 2)), path)
    return path


def in_page(script: str, value: object, folder: Path) -> object:
    """What a script makes of `value` with the page's grammar and modules, in Node.js.

    It sees `given`, `Grammar`, `CaptionError`, `closest`, `Editor`, `noise`, `grammar`, `editor`,
    and answers with `say(...)`.
    """
    (folder / "given.json").write_text(json.dumps(value), encoding="utf-8")
    (folder / "grammar.json").write_text(json.dumps(grammar()), encoding="utf-8")
    (folder / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    for name in ("grammar.js", "requests.js", "edits.js", "noise.js"):
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    (folder / "script.js").write_text(
        f"""
        import {{ readFileSync, writeFileSync }} from "node:fs";
        import {{ CaptionError, Grammar, closest }} from "./grammar.js";
        import {{ Editor }} from "./edits.js";
        import {{ noise }} from "./noise.js";
        const read = (name) => JSON.parse(readFileSync(name, "utf8"));
        const [given, tables] = [read("given.json"), read("grammar.json")];
        const grammar = new Grammar(tables.captions);
        const editor = new Editor(grammar, tables);
        const say = (value) => writeFileSync("said.json", JSON.stringify(value));
        {script}
        """,
        encoding="utf-8",
    )
    done = subprocess.run(
        ["node", "script.js"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "said.json").read_text(encoding="utf-8"))


@contextmanager
def served(*arguments: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """`python -m fastgen_course serve` on a free port: its address, and its process."""
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    )
    command = [sys.executable, "-m", "fastgen_course", "serve", "--port", "0", *arguments]
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = server.stdout.readline()
        address = re.search(r"http://\S+/", line)
        assert address, line + server.stderr.read()
        yield address.group(), server
    finally:
        if server.poll() is None:
            server.terminate()
        try:
            server.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()
