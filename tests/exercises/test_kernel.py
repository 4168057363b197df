"""In a real kernel: code of cells, static output for a runner, buttons for a reader."""

import queue
import time
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).resolve().parents[2]
VIEW = "application/vnd.jupyter.widget-view+json"

SETUP = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import torch
from fastgen_course.exercises import *
from fastgen_course.exercises import registry
from fastgen_course.show import show
from tests.exercises import example
registry.NOTEBOOKS["example"] = "99_example"
example.register()
"""

STUB = '''
@exercise("example.optimal_discriminator")
def optimal_discriminator(p_data, p_model):
    """D*(x)."""
    ...  # your turn
assert optimal_discriminator is example.optimal_discriminator
'''

WRONG = """
@exercise("example.optimal_discriminator")
def optimal_discriminator(p_data, p_model):
    return p_model / (p_data + p_model)
"""

HALF = """
@exercise("example.optimal_discriminator")
def optimal_discriminator(p_data, p_model):
    total = p_data + p_model
    return p_data / missing
"""

ENDLESS = """
import dataclasses
id = "example.optimal_discriminator"
registry._REGISTRY[id] = dataclasses.replace(registry.find(id), time_limit_s=0.2)
@exercise(id)
def optimal_discriminator(p_data, p_model):
    while True:
        pass
"""

CLASS = '''
@exercise("example.scale")
class Scale:
    """Multiply by a learned number."""
    def __call__(self, x):
        ...
assert Scale is example.Scale
'''

PREDICT = """
def result():
    print("a line")
    show(example.draw_discriminators(*[example.optimal_discriminator] * 2), alt="D* drawn twice")
predict("example.loss_at_equilibrium", ["0", "ln 2", "2 ln 2"], result=result)
"""


class Kernel:
    def __init__(self, client):
        self.client = client

    def run(self, code, live=False):
        """Execute a cell; all messages until the kernel is idle again."""
        id = self.client.execute(code.strip(), allow_stdin=live)
        return self.until_idle(id)

    def until_idle(self, id):
        messages = []
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != id:
                continue
            if message["msg_type"] == "error":
                pytest.fail("\n".join(message["content"]["traceback"]))
            if message["content"].get("execution_state") == "idle":
                return messages
            messages.append(message)
        pytest.fail("the kernel did not answer within 180 s")

    def press(self, model_id):
        """What a front end sends when a button is pressed."""
        content = {"method": "custom", "content": {"event": "click"}}
        message = self.client.session.msg("comm_msg", {"comm_id": model_id, "data": content})
        self.client.shell_channel.send(message)
        return self.until_idle(message["header"]["msg_id"])


def shown(messages, kind="text/html"):
    return [
        message["content"]["data"][kind]
        for message in messages
        if message["msg_type"] in ("display_data", "update_display_data")
        and kind in message["content"]["data"]
    ]


def on_stderr(messages):
    return [
        message["content"]["text"]
        for message in messages
        if message["msg_type"] == "stream" and message["content"]["name"] == "stderr"
    ]


@pytest.fixture(scope="module")
def kernel():
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=180)
        started = Kernel(client)
        started.run(SETUP)
        yield started
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_cell_s_stub_is_untouched(kernel):
    messages = kernel.run(STUB)
    assert "Not attempted; the notebook goes on with ours." in shown(messages)[0]
    assert not on_stderr(messages)


def test_a_cell_s_mistake_is_named_and_drawn(kernel):
    messages = kernel.run(WRONG)
    page = shown(messages)[0]
    assert "Likely mistake: the model's share." in page
    assert "<code>[0.75]</code>" in page
    assert len(shown(messages, "image/png")) == 1
    assert "Likely mistake: the model's share." in shown(messages, "text/plain")[0]
    assert not on_stderr(messages)


def test_a_cell_s_line_is_named(kernel):
    page = shown(kernel.run(HALF))[0]
    assert "(line 4: <code>return p_data / missing</code>)" in page


def test_a_class_of_a_cell_is_read(kernel):
    page = shown(kernel.run(CLASS))[0]
    assert "Not attempted" in page


def test_the_kernel_outlives_an_endless_loop(kernel):
    messages = kernel.run(ENDLESS)
    assert "was stopped" in shown(messages)[0]
    kernel.run("assert 1 + 1 == 2")


def test_a_runner_sees_the_question_and_a_folded_result(kernel):
    messages = kernel.run(PREDICT)
    (page,) = shown(messages)
    assert not shown(messages, VIEW)
    assert "What is D's loss" in page.split("<details")[0]
    folded = page.split("<details")[1]
    assert "a line" in folded
    assert 'alt="D* drawn twice"' in folded
    assert not [m for m in messages if m["msg_type"] == "stream"]


def test_a_reader_presses_a_button_and_sees_the_result(kernel):
    messages = kernel.run(PREDICT, live=True)
    (page,) = shown(messages)
    assert len(shown(messages, VIEW)) == 1
    assert "<details open" not in page
    buttons = {
        message["content"]["data"]["state"]["description"]: message["content"]["comm_id"]
        for message in messages
        if message["msg_type"] == "comm_open"
        and message["content"]["data"]["state"].get("_model_name") == "ButtonModel"
    }
    assert list(buttons) == ["0", "ln 2", "2 ln 2"]
    (page,) = shown(kernel.press(buttons["0"]))
    assert "You said: 0. Not so." in page
    assert "A loss of 0 means that D is always right." in page
    assert "<details open" in page
    (page,) = shown(kernel.press(buttons["2 ln 2"]))
    assert "You said: 2 ln 2. Right." in page
    messages = kernel.run('print(status("example.loss_at_equilibrium"))')
    assert messages[-1]["content"]["text"] == "right\n"
