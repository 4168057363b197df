"""The serving page in a real browser: served, behind a proxy's prefix, and as static files.

Skipped without Chromium, and the static page without its built page side (Node.js builds it);
FASTGEN_REQUIRE_CHROMIUM=1 makes both a failure, as in CI. With FASTGEN_RECORD=1 the static page is
timed with its own button and the figure is recorded:

    FASTGEN_RECORD=1 python -m pytest tests/browser/test_serve_page.py -k static

takes half a minute and belongs on an otherwise idle machine. FASTGEN_SERVE_MODEL names another
model than the one served by default.
"""

from __future__ import annotations

import base64
import functools
import http.server
import io
import json
import os
import shutil
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from fastgen_course import cli
from fastgen_course.datasets.captions import encode_words
from fastgen_course.runtimes.browser_bundle import bundle_fault
from fastgen_course.serve.model import CAPTION, load_served, pictures, stored_as
from fastgen_course.serve.model import MODEL as SHIPPED
from fastgen_course.timing import record
from tests.browser.lab import PATIENCE_MS, LabPage, launch, require_chromium
from tests.helpers_serve import served

COMMAND = "FASTGEN_RECORD=1 python -m pytest tests/browser/test_serve_page.py -k static"
RECORDING = os.environ.get("FASTGEN_RECORD") == "1"
MODEL = os.environ.get("FASTGEN_SERVE_MODEL", SHIPPED)


@pytest.fixture(scope="module")
def browser():
    executable = require_chromium()
    with sync_playwright() as playwright, launch(playwright, executable) as browser:
        yield browser


@pytest.fixture(scope="module")
def model():
    """The shipped generator; exported once, and kept for the next run."""
    return load_served(MODEL)


@pytest.fixture
def open_page(browser):
    """Opens an address in a fresh page, which must end without an error or a stray request."""
    expect.set_options(timeout=PATIENCE_MS)
    opened = []

    def open_it(address):
        page = LabPage(browser)
        opened.append(page)
        page.asked = []
        page.page.on("request", lambda request: page.asked.append((request.method, request.url)))
        page.page.goto(address)
        expect(page.page.locator("#now img")).to_have_count(4)
        return page

    yield open_it
    for page in opened:
        errors, outside = page.console_errors, page.outside
        page.close()
        assert errors == [] and outside == []


def shown(page, where="#now"):
    """The pictures of a list as the browser shows them: uint8 (n, 28, 28, 3)."""
    images = page.locator(f"{where} img").all()
    pngs = [base64.b64decode(LabPage.pixels(image).partition(",")[2]) for image in images]
    return np.stack([np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in pngs])


def drawn_here(model, caption, seed):
    """What ONNX Runtime in this process draws for four seeds from `seed`."""
    noise = model.noise([seed + k for k in range(4)])
    return pictures(model.session()(noise, encode_words([caption] * 4).numpy()))


def same(one, other, levels=1):
    """Whether pictures differ by at most so many of 255 levels."""
    return one.shape == other.shape and int(np.abs(one.astype(int) - other).max()) <= levels


def use_it(page, model):
    """What a reader does in either page, with the keyboard alone where that is the point."""
    caption, request = page.get_by_label("Caption"), page.get_by_label("Change it in words")
    seed, pictures_ = page.get_by_label("Seed"), page.locator("#now img")
    # It has drawn its example, with words for who cannot see it.
    expect(caption).to_have_value(CAPTION)
    assert same(shown(page), drawn_here(model, CAPTION, 0))
    assert [image.get_attribute("alt") for image in pictures_.all()] == [
        f"Picture {k} of 4: {CAPTION}" for k in (1, 2, 3, 4)
    ]
    expect(page.locator("#times")).to_contain_text("Time per picture: model")
    expect(page.locator("#caption-says")).to_contain_text("Read as size small, colour red")
    # In the order of the page, each thing can be reached by Tab.
    caption.focus()
    order = []
    for _ in range(6):
        order.append(page.evaluate("document.activeElement.id || document.activeElement.innerText"))
        page.keyboard.press("Tab")
    assert order == ["caption", "seed", "Draw", "others", "request", "Change"]
    # An unknown word is named while it is typed, and a near one is offered.
    caption.fill("a red sneeker")
    expect(page.locator("#caption-says")).to_contain_text('did you mean "sneaker"?')
    before = shown(page)
    caption.press("Enter")
    assert page.evaluate("document.activeElement.id") == "caption"
    expect(caption).to_have_attribute("aria-invalid", "true")
    assert same(shown(page), before, 0)
    page.get_by_role("button", name="Use “sneaker”").click()
    expect(caption).to_have_value("a red sneaker")
    expect(page.locator("#caption-says")).to_contain_text("Left to the noise: size, background")
    expect(caption).to_have_attribute("aria-invalid", "false")
    # Drawn at Enter, with the seed that is asked for.
    caption.fill("a large blue dress on a pale pink background, flat style")
    seed.fill("41")
    seed.press("Enter")
    expect(pictures_.last).to_have_attribute("alt", f"Picture 4 of 4: {caption.input_value()}")
    first = drawn_here(model, caption.input_value(), 41)
    assert same(shown(page), first) and not same(first, before, 9)
    expect(page.locator("#now figcaption").first).to_have_text("seed 41")
    # Changed in words: the caption changes, the noise stays, the old pictures stand below.
    request.fill("make it green and draw it as a sketch")
    request.press("Enter")
    changed = "a large green dress on a pale pink background, sketch style"
    expect(caption).to_have_value(changed)
    expect(page.locator("#edit-says")).to_contain_text("Changed: colour blue → green")
    expect(page.locator("#earlier")).to_be_visible()
    assert same(shown(page), drawn_here(model, changed, 41))
    assert same(shown(page, "#before"), first)
    for wrong, words in {
        "make it green": "Nothing changes",
        "make it a car": "\"car\" is nothing that the course can draw",
        "": "request is empty",
    }.items():  # fmt: skip
        request.fill(wrong)
        request.press("Enter")
        expect(page.locator("#edit-says")).to_contain_text(words)
    expect(caption).to_have_value(changed)
    page.get_by_role("button", name="Other garments").click()
    expect(page.locator("#now figcaption").first).to_have_text("seed 45")
    seed.fill("1.5")
    seed.press("Enter")
    expect(page.locator("#seed-says")).to_contain_text("The seed must be a whole number")


def test_the_served_page_behind_a_prefix(open_page, model):
    where = ["--model", str(model.path), "--prefix", "/user/me/proxy/8008"]
    with served(*where) as (address, server):
        assert address.endswith("/user/me/proxy/8008/")
        opened = open_page(address.removesuffix("/"))  # it leads to the slash
        use_it(opened.page, model)
        assert all(url.startswith((address[:-1], "data:")) for _, url in opened.asked)
        assert ("POST", f"{address}draw") in opened.asked
        # A server that is too busy, and one that is gone, are told in a sentence.
        page, times = opened.page, opened.page.locator("#times")
        busy = json.dumps({"error": "the server is busy; come again in 1 s."})
        page.route("**/draw", lambda route: route.fulfill(status=429, body=busy))
        page.get_by_label("Seed").fill("7")
        page.get_by_role("button", name="Draw", exact=True).click()
        expect(times).to_contain_text("The server is busy; come again in 1 s.")
        page.unroute("**/draw")
        page.get_by_role("button", name="Draw", exact=True).click()
        expect(times).to_contain_text("Time per picture")
        server.terminate()
        server.wait(timeout=30)
        page.get_by_role("button", name="Draw", exact=True).click()
        expect(times).to_contain_text("The server does not answer; is it still running?")
        # Chromium's own words on what was refused: two edits (`use_it`), the busy server, the gone.
        told = [error for error in opened.console_errors if "Failed to load resource" in error]
        assert told == opened.console_errors and len(told) == 4
        assert ["422" in t for t in told] == [True, True, False, False]
        assert "429" in told[2] and "CONNECTION_REFUSED" in told[3]
        opened.console_errors.clear()


class Plain(http.server.SimpleHTTPRequestHandler):
    """A plain web server of files that says nothing; `packs` marks .gz as such, as some do."""

    packs = False

    def log_message(self, *_):
        """Nothing."""

    def end_headers(self):
        if self.packs and self.path.endswith(".gz"):
            self.send_header("Content-Encoding", "gzip")
        super().end_headers()


@contextmanager
def plain_server(folder, packs=False):
    handler = type("Handler", (Plain,), {"packs": packs})
    where = ("127.0.0.1", 0)
    server = http.server.ThreadingHTTPServer(where, functools.partial(handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def site(model, tmp_path_factory):
    """The static page, in a folder of a folder."""
    if fault := bundle_fault():
        sentence = f"the page side's build is {fault}; run `make browser`"
        if shutil.which("node") and os.environ.get("FASTGEN_REQUIRE_CHROMIUM") == "1":
            pytest.fail(f"{sentence} (FASTGEN_REQUIRE_CHROMIUM is set, and Node.js is here)")
        pytest.skip(sentence)
    folder = tmp_path_factory.mktemp("web")
    written = ["serve", "--static", str(folder / "fast" / "page"), "--model", str(model.path)]
    assert cli.main(written) == 0
    return folder


def test_the_static_page_draws_in_the_page(open_page, model, site):
    with plain_server(site) as address:
        opened = open_page(f"{address}/fast/page/")
        page = opened.page
        expect(page.locator("#engine")).to_contain_text("draws in this page")
        loaded = len(opened.asked)
        if not RECORDING:
            use_it(page, model)
        page.get_by_role("button", name="Time it").click()
        speed = page.locator("#speed[data-figures]")
        expect(speed).to_contain_text("pictures a second, one at a time")
        figures = json.loads(speed.get_attribute("data-figures"))
        assert figures["readings"] >= 3 and figures["per_second"] > 0
        fetched = [url for _, url in opened.asked[loaded:] if not url.startswith("data:")]
        assert fetched == [] and {method for method, _ in opened.asked} == {"GET"}
        if RECORDING:
            keep_speed(figures, model, page.evaluate("navigator.userAgent"))


def keep_speed(figures, model, agent):
    """Record pictures a second: at the median, from the p90 up to the inverse of it."""
    low = 1000 / figures["p90_ms"]
    value = figures["per_second"]
    record(
        "browser", "browser.wasm_pictures_per_s", value, "pictures/s",
        spread=(min(low, value), value), command=COMMAND, base=MODEL, batch=1, threads=1,
        dtype=stored_as(model), runtime="onnxruntime-web", readings=figures["readings"],
        browser=agent, weights=model.key,
    )  # fmt: skip


def test_the_static_page_where_the_server_unpacks(open_page, site):
    """Some web servers mark .gz files so that the browser unpacks them before the page can."""
    with plain_server(site, packs=True) as address:
        page = open_page(f"{address}/fast/page/").page
        expect(page.locator("#times")).to_contain_text("Time per picture")


def test_the_static_page_with_a_file_missing_is_a_sentence(browser, site):
    page = LabPage(browser)
    page.page.route("**/model.onnx*", lambda route: route.fulfill(status=404))
    with plain_server(site) as address:
        page.page.goto(f"{address}/fast/page/")
        expect(page.page.locator("#engine")).to_contain_text("could not be fetched (the web server")
        expect(page.page.locator("#engine")).to_contain_text("The file model.onnx")
    page.close()
