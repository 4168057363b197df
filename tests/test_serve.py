"""The serving page's server: what it draws, what it refuses and how, and that it stops."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient
from torch import nn

from fastgen_course import cli
from fastgen_course.checkpoints import build_model, save_checkpoint
from fastgen_course.datasets.captions import encode_words
from fastgen_course.files import DataFileError
from fastgen_course.runtimes import browser_bundle
from fastgen_course.runtimes.onnx_export import OnnxModel, export_onnx
from fastgen_course.serve import model as model_module
from fastgen_course.serve.app import MAX_BODY_BYTES, Page, make_app
from fastgen_course.serve.batching import Batcher, Limits, Overloaded
from fastgen_course.serve.model import MODEL, ServeError, checked, load_served, pictures, stored_as
from fastgen_course.serve.page_files import FOLDER, page_files, told_by_server
from fastgen_course.serve.server import listen
from fastgen_course.serve.static import write_static
from fastgen_course.serve.wire import MAX_PICTURES, MAX_SEED
from tests.helpers_serve import CAPTION, export_tiny

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return checked("tiny", export_tiny(tmp_path_factory.mktemp("onnx") / "tiny.onnx"))


@pytest.fixture(scope="module")
def client(tiny):
    app = make_app(Page(tiny), prefix="/course/draw-it")
    with TestClient(app, follow_redirects=False) as client:
        yield client


def sentence_of(answer, status):
    """The one sentence of a refusal."""
    assert answer.status_code == status, answer.text
    (said,) = answer.json().values()
    assert said.rstrip(")").endswith((".", "?")) and "\n" not in said and "Traceback" not in said
    return said


# --- drawing and editing ------------------------------------------------------------------------


def test_pictures_are_what_the_model_draws_from_the_seeds_noise(client, tiny):
    asked = {"caption": CAPTION, "seed": 5, "count": 3}
    answer = client.post("/draw", json=asked).json()
    noise = np.concatenate([
        torch.randn(1, 20, generator=torch.Generator().manual_seed(seed)).numpy()
        for seed in (5, 6, 7)
    ])  # fmt: skip
    expected = pictures(OnnxModel(tiny.path)(noise, encode_words([CAPTION] * 3).numpy()))
    for k, picture in enumerate(answer["pictures"]):
        image = Image.open(io.BytesIO(base64.b64decode(picture["png"])))
        assert image.format == "PNG" and picture["seed"] == 5 + k
        gap = np.abs(np.asarray(image).astype(int) - expected[k])
        assert gap.max() <= 1  # a batch of three adds up in another order than one
    assert 0 < answer["model_ms"] <= answer["server_ms"] and answer["batch"] == 3
    again = client.post("/draw", json={"caption": CAPTION, "seed": 6}).json()
    assert [p["seed"] for p in again["pictures"]] == [6]


def test_an_edit_changes_the_caption(client):
    asked = {"caption": "a red boot", "request": "make it green and a sketch"}
    answer = client.post("/edit", json=asked).json()
    assert answer["caption"] == "a green boot, sketch style" and answer["changed"] is True
    assert answer["answered_by"] == "keyword rules" and answer["note"].startswith("Changed: ")
    asked["caption"] = answer["caption"]
    again = client.post("/edit", json=asked).json()
    assert again["changed"] is False and again["note"].startswith("Nothing changes")


def test_the_page_and_its_files(client, tiny):
    page = client.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "unsafe-inline" not in policy and "default-src 'none'" in policy
    files = page_files(told_by_server(tiny, "keyword rules"))
    for name in ("page.js", "page.css", "grammar.json", "page.json", "noise.js"):
        answer = client.get(f"/{name}")
        assert answer.status_code == 200 and answer.content == files[name]
    assert client.get("/page.js").headers["content-type"].startswith("text/javascript")
    told = client.get("/page.json").json()
    assert (told["engine"], told["model"], told["variants"]) == ("server", "tiny", 4)
    assert client.get("/health").json()["status"] == "ok"


def test_the_page_asks_nobody_else_and_has_words_for_everything():
    """No address but relative ones, nothing inline, a label a field; the scripts it names exist."""
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"""(?:src|href)=["'](?!data:,)([^"']+)""", html) == ["page.css", "page.js"]
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", html)
    fields = re.findall(r"<input\s[^>]*?id=\"(\w+)\"", html)
    assert fields == ["caption", "seed", "request"]
    for name in fields:
        assert f'<label for="{name}">' in html
    for path in FOLDER.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://|innerHTML|\beval\b|localStorage", text), path.name
        for name in re.findall(r"""(?:from|import)\s*\(?\s*["']\./([\w.]+)["']""", text):
            assert (FOLDER / name).is_file() or name in browser_bundle.FILES
    css = (FOLDER / "page.css").read_text(encoding="utf-8")
    assert "url(" not in css and "@import" not in css and ":focus-visible" in css


def test_behind_a_prefix_everything_is_where_the_page_looks_for_it(client):
    answer = client.get("/course/draw-it")
    assert (answer.status_code, answer.headers["location"]) == (307, "draw-it/")
    assert client.get("/course/draw-it/").text == client.get("/").text
    for name in ("page.js", "page.json", "health"):
        assert client.get(f"/course/draw-it/{name}").status_code == 200
    drawn = client.post("/course/draw-it/draw", json={"caption": CAPTION})
    assert len(drawn.json()["pictures"]) == 1
    assert "nothing at this address" in sentence_of(client.get("/course/draw-it/a/b"), 404)
    assert "nothing at this address" in sentence_of(client.get("/course/other/"), 404)


@pytest.mark.parametrize("prefix", ["/a b", "/../x", "//", "/a//b", "/ä", "/a?b", "http://x.org"])
def test_a_prefix_that_is_no_path(prefix, tiny):
    if prefix == "//":
        assert make_app(Page(tiny), prefix)  # nothing but slashes is no prefix
        return
    with pytest.raises(ServeError, match="--prefix must be a path"):
        make_app(Page(tiny), prefix)


# --- what cannot be answered ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"\xff\xfe{}", 400, "not JSON"),
        (b"[" * 4000, 400, "not JSON"),
        (b"[]", 400, "must be a JSON object, got a list"),
        (b"7", 400, "must be a JSON object, got 7"),
        (b"{}", 422, "has no caption"),
        (b'{"caption": "a red boot", "style": 1}', 422, 'no field "style"'),
        (b'{"caption": 3}', 422, "a caption is a text"),
        (b'{"caption": ""}', 422, "the caption is empty"),
        (b'{"caption": "a red sneeker"}', 422, 'did you mean "sneaker"?'),
        (b'{"caption": "a red blue boot"}', 422, "two values of colour"),
        (b'{"caption": "\\ud800 zebra"}', 422, "zebra"),
        (json.dumps({"caption": "red " * 300}).encode(), 422, "1,200 characters"),
        (b'{"caption": "a boot", "count": 0}', 422, "count must be a whole number from 1 to 8"),
        (b'{"caption": "a boot", "count": 9}', 422, "got 9"),
        (b'{"caption": "a boot", "count": 1.0}', 422, "got 1.0"),
        (b'{"caption": "a boot", "count": true}', 422, "got True"),
        (b'{"caption": "a boot", "count": "4"}', 422, "got a text"),
        (b'{"caption": "a boot", "seed": -1}', 422, "seed must be a whole number from 0"),
        (b'{"caption": "a boot", "seed": NaN}', 422, "got nan"),
        (b'{"caption": "a boot", "seed": 1e999}', 422, "got inf"),
        (b'{"caption": "a boot", "seed": null}', 422, "got null"),
        (json.dumps({"caption": "a boot", "seed": MAX_SEED}).encode(), 422, "2,147,483,640"),
        (b" " * (MAX_BODY_BYTES + 1), 413, "too large; keep it under 4,096 bytes"),
        (b" " * 3_000_000, 413, "too large"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_drawn_is_one_sentence(client, body, status, words):
    said = sentence_of(client.post("/draw", content=body, headers=JSON), status)
    assert words in said and len(said) < 400


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"caption": CAPTION}, "has no request"),
        ({"caption": CAPTION, "request": 5}, "request must be a text"),
        ({"caption": None, "request": "red"}, "caption must be a text, got null"),
        ({"caption": "a zebra", "request": "red"}, 'the word "zebra"'),
        ({"caption": CAPTION, "request": ""}, "the request is empty"),
        ({"caption": CAPTION, "request": "make it a car"}, '"car" is nothing that'),
        ({"caption": CAPTION, "request": "\ud800" * 9}, "no words"),
    ],
)
def test_an_edit_that_cannot_be_is_one_sentence(client, fields, words):
    body = json.dumps(fields).encode()
    assert words in sentence_of(client.post("/edit", content=body, headers=JSON), 422)


def test_other_methods_types_and_addresses_are_one_sentence(client):
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = client.post("/draw", content=b"{}", headers={"Content-Type": kind})
        assert "send the request as JSON" in sentence_of(answer, 415)
    for name in ("/draw", "/edit"):
        answer = client.get(name)
        assert "POST to draw" in sentence_of(answer, 405) and answer.headers["allow"] == "POST"
    assert "DELETE is not for" in sentence_of(client.delete("/health"), 405)
    for name in ("/nothing", "/page.py", "/..%2fapp.py", "/__init__.py"):
        assert "nothing at this address" in sentence_of(client.get(name), 404)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(
        st.binary(max_size=200),
        st.dictionaries(
            st.sampled_from(["caption", "seed", "count", "request", "x"]),
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=50),
                      st.sampled_from([CAPTION, "make it red"]), st.lists(st.integers())),
            max_size=4,
        ).map(lambda fields: json.dumps(fields).encode()),
    )
)  # fmt: skip
@pytest.mark.parametrize("address", ["/draw", "/edit"])
def test_whatever_is_sent_gets_an_answer_or_a_sentence(address, body):
    client = HELD["client"]
    answer = client.post(address, content=body, headers=JSON)
    if answer.status_code != 200:
        assert answer.status_code in (400, 422)
        sentence_of(answer, answer.status_code)


HELD = {}


@pytest.fixture(autouse=True, scope="module")
def _held(client):
    """hypothesis calls a test many times; it may not take a fixture anew at each."""
    HELD["client"] = client
    yield
    HELD.clear()


def test_a_fault_of_ours_is_told_without_its_insides(tiny, caplog):
    page = Page(tiny)

    def broken(_noise, _words):
        raise RuntimeError("secret insides")

    page.batcher = Batcher([broken])
    with TestClient(make_app(page), raise_server_exceptions=False) as client:
        said = sentence_of(client.post("/draw", json={"caption": CAPTION}), 500)
        assert "secret" not in said and "secret insides" in caplog.text
        page.batcher._draws[0] = None
        assert client.get("/health").status_code == 200


# --- overload ------------------------------------------------------------------------------------


def test_a_full_queue_is_429_with_a_sentence_and_recovers(tiny):
    page = Page(tiny)
    session, started, go_on = tiny.session(), threading.Event(), threading.Event()

    def slow(noise, words):
        started.set()
        assert go_on.wait(30)
        return session(noise, words)

    page.batcher = Batcher([slow], Limits(batch=1, burst=2, standing=1))
    asked = {"caption": CAPTION}
    with TestClient(make_app(page)) as client, ThreadPoolExecutor(3) as visitors:
        waiting = [visitors.submit(client.post, "/draw", json=asked)]
        assert started.wait(30)  # one is drawn, and none waits
        waiting += [visitors.submit(client.post, "/draw", json=asked) for _ in range(2)]
        while page.batcher.waiting < 2:
            started.wait(0.01)
        refused = client.post("/draw", json=asked)
        said = sentence_of(refused, 429)
        assert refused.headers["retry-after"] == "1" and "come again in 1 s" in said
        assert client.get("/health").json()["refused"] == 1  # it answers all the while
        go_on.set()
        assert [future.result(30).status_code for future in waiting] == [200] * 3
        assert client.post("/draw", json=asked).status_code == 200
        assert client.get("/health").json()["drawn"] == 4


def together(batcher, jobs):
    """Draw `jobs` (rows of noise) at once; what became of each, exceptions included."""

    async def run():
        batcher.start()
        words = [np.zeros((len(noise), 20), np.int64) for noise in jobs]
        calls = [batcher.draw(noise, y) for noise, y in zip(jobs, words, strict=True)]
        try:
            return await asyncio.gather(*calls, return_exceptions=True)
        finally:
            await batcher.close()

    return asyncio.run(run())


def rows(*counts):
    """Jobs of so many rows, every number another."""
    numbers = iter(range(100))
    return [np.array([[next(numbers)] for _ in range(n)], np.float32) for n in counts]


@pytest.mark.parametrize("workers", [1, 3])
def test_everyone_gets_their_own_rows_however_they_are_batched(workers):
    sizes = []

    def draw(noise, words):
        assert len(noise) == len(words)
        sizes.append(len(noise))
        return noise * 10

    jobs = rows(1, 4, 1, 1, 8, 2, 1, 1, 3)
    done = together(Batcher([draw] * workers, Limits(batch=8)), jobs)
    for noise, drawn in zip(jobs, done, strict=True):
        assert np.array_equal(drawn.images, noise * 10)
        assert drawn.batch >= len(noise) and drawn.wait_ms >= 0 and drawn.model_ms >= 0
    assert sum(sizes) == 22 and max(sizes) == 8
    assert len(sizes) < len(jobs)


def test_without_batching_each_request_is_a_call():
    sizes = []
    draw = lambda noise, words: sizes.append(len(noise)) or noise  # noqa: E731
    together(Batcher([draw], Limits(batch=1)), rows(1, 4, 1))
    assert sizes == [1, 4, 1]


@pytest.mark.parametrize(("patience_ms", "allowed"), [(1e9, 6), (-1.0, 3)])
def test_a_burst_is_let_in_and_a_standing_queue_is_cut_short(patience_ms, allowed):
    limits = Limits(batch=2, burst=6, standing=3, patience_ms=patience_ms)
    batcher = Batcher([lambda noise, words: noise], limits)
    done = together(batcher, rows(*[1] * 10))
    refused = [d for d in done if isinstance(d, Overloaded)]
    assert len(done) - len(refused) == allowed and batcher.refused == len(refused)
    assert all(d.retry_after_s >= 1 for d in refused)
    assert not isinstance(together(batcher, rows(1))[0], Exception)  # empty again: it recovers


def test_a_request_larger_than_the_limit_is_drawn_when_nobody_waits():
    batcher = Batcher([lambda noise, words: noise], Limits(batch=2, burst=2, standing=1))
    assert len(together(batcher, rows(8))[0].images) == 8


def test_a_call_that_fails_fails_its_own_requests_alone():
    left = iter((ValueError("broken"), None))

    def draw(noise, words):
        if error := next(left):
            raise error
        return noise

    done = together(Batcher([draw], Limits(batch=1)), rows(1, 1))
    assert isinstance(done[0], ValueError) and np.array_equal(done[1].images, [[1]])


def test_closing_answers_whoever_waits():
    async def run():
        go_on = threading.Event()
        batcher = Batcher([lambda noise, words: go_on.wait(30) and noise], Limits(batch=1))
        batcher.start()
        words = np.zeros((1, 20), np.int64)
        calls = [asyncio.create_task(batcher.draw(noise, words)) for noise in rows(1, 1)]
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0.05)
        go_on.set()
        await closing
        return await asyncio.gather(*calls, return_exceptions=True)

    done = asyncio.run(asyncio.wait_for(run(), 30))
    assert [type(d) for d in done] == [Overloaded, Overloaded]


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"standing": 0}, {"standing": 9, "burst": 8}])
def test_limits_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="a queue needs"):
        Limits(**wrong)


# --- the model ------------------------------------------------------------------------------------


def test_models_that_cannot_be_served(tmp_path):
    export_onnx(nn.Linear(3, 2), torch.zeros(2, 3), tmp_path / "linear.onnx")
    (tmp_path / "text.onnx").write_bytes(b"not a model")
    for name, words in {
        str(tmp_path / "linear.onnx"): "a network of \\(noise, words\\)",
        str(tmp_path / "text.onnx"): "text.onnx is not a readable ONNX model",
        str(tmp_path / "none.onnx"): "none.onnx is missing",
        "nobody": "there is no model 'nobody'",
        "judge_train": "judge_train cannot be served: it does not draw",
        "gpt": "gpt cannot be served: it does not draw",
    }.items():
        with pytest.raises((ServeError, DataFileError), match=words):
            load_served(name)


CARD = dict.fromkeys(("seed", "command", "data_sha256", "minutes", "machine", "metrics"), "x")


def test_shipped_weights_are_exported_once(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGEN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(model_module, "_cache", lambda: tmp_path / "cache")
    torch.manual_seed(0)
    config = {"noise": 8, "caption": 8, "channels": (8, 8, 8)}
    save_checkpoint("generator_base", build_model("generator_base", config), CARD)
    first = load_served("generator_base")
    assert first.noise_width == 8 and stored_as(first) == "float32"
    made = first.path.stat().st_mtime_ns
    assert load_served("generator_base") == first and first.path.stat().st_mtime_ns == made
    first.path.write_bytes(first.path.read_bytes()[:1000])  # cut off: made anew
    assert load_served("generator_base").noise_width == 8
    assert len(list((tmp_path / "cache").iterdir())) == 1
    # An exported file that is shipped under the name comes first.
    shipped = tmp_path / "data" / "weights" / "generator_base.onnx"
    shipped.write_bytes(first.path.read_bytes())
    assert load_served("generator_base").path == shipped


# --- starting and stopping -----------------------------------------------------------------------


def mistake(capsys, *arguments):
    assert cli.main(["serve", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_what_cannot_be_started_is_one_sentence(capsys, tiny):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} is in use" in mistake(capsys, "--port", str(port))
    assert "--port must be 0 to 65535" in mistake(capsys, "--port", "70000")
    assert "is no address" in mistake(capsys, "--port", "0", "--host", "no such host.")
    assert "--prefix must be a path" in mistake(capsys, "--port", "0", "--prefix", "a b")
    assert "no model 'nobody'" in mistake(capsys, "--port", "0", "--model", "nobody")
    model = ["--port", "0", "--model", str(tiny.path)]
    assert "workers must be at least 1" in mistake(capsys, *model, "--workers", "0")
    assert "a queue needs batch from 1" in mistake(capsys, *model, "--batch", "0")


def test_the_loopback_is_what_is_listened_on():
    with listen("127.0.0.1", 0) as opened:
        assert opened.getsockname()[0] == "127.0.0.1"
    options = cli._parser().parse_args(["serve"])
    assert (options.host, options.model, options.prefix) == ("127.0.0.1", MODEL, "")


# --- static files --------------------------------------------------------------------------------


def built(folder, digest=None):
    """A page side that looks built."""
    (folder / "src").mkdir(parents=True)
    for name in ("src/widget.js", "build.mjs", "package.json", "package-lock.json"):
        (folder / name).write_text("//")
    (folder / "dist").mkdir()
    (folder / "dist" / "widget.js").write_text("export {};")
    (folder / "dist" / "ort.wasm.gz").write_bytes(b"wasm")
    sources = browser_bundle.digest_of_sources(folder)
    (folder / "dist" / "build.json").write_text(json.dumps({"sources": digest or sources}))


def test_the_page_as_files(tiny, tmp_path, monkeypatch, capsys):
    built(tmp_path / "bundle")
    monkeypatch.setattr(browser_bundle, "FOLDER", tmp_path / "bundle")
    site = tmp_path / "site"
    assert cli.main(["serve", "--static", str(site), "--model", str(tiny.path)]) == 0
    assert "python -m http.server" in capsys.readouterr().out
    told = json.loads((site / "page.json").read_text())
    assert (told["engine"], told["model"], told["noise_width"]) == ("page", "tiny", 20)
    assert (site / "model.onnx").read_bytes() == tiny.path.read_bytes()
    names = {path.name for path in site.iterdir()}
    assert {path.name for path in FOLDER.iterdir()} < names
    assert {"grammar.json", "model.onnx", "widget.js", "ort.wasm.gz"} < names
    assert (site / "index.html").read_bytes() == (FOLDER / "index.html").read_bytes()
    (site / "model.onnx").write_bytes(b"old")
    write_static(site, str(tiny.path))  # an older page is written anew
    assert (site / "model.onnx").read_bytes() == tiny.path.read_bytes()


def test_files_that_cannot_be_written_are_one_sentence(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(browser_bundle, "FOLDER", tmp_path / "bundle")
    with pytest.raises(ServeError, match="is not built: with Node"):
        write_static(tmp_path / "site", str(tiny.path))
    built(tmp_path / "bundle", digest="another")
    with pytest.raises(ServeError, match="was built from older sources"):
        write_static(tmp_path / "site", str(tiny.path))
    assert not (tmp_path / "site").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ServeError, match="mine holds other files"):
        write_static(tmp_path / "mine", str(tiny.path))
    with pytest.raises(ServeError, match="is a file"):
        write_static(tmp_path / "mine" / "thesis.txt", str(tiny.path))
    assert MAX_PICTURES == 8  # what the sentences above say
