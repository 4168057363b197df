"""The example notebook, registered for one test at a time, and a session of its own."""

import pytest

from fastgen_course.exercises import core, prediction, registry, session
from tests.exercises import example as example_module


@pytest.fixture
def fresh_session(monkeypatch):
    own = session.Session()
    monkeypatch.setattr(core, "SESSION", own)
    monkeypatch.setattr(prediction, "SESSION", own)
    return own


@pytest.fixture
def example(monkeypatch, fresh_session):
    monkeypatch.setitem(registry.NOTEBOOKS, "example", "99_example")
    example_module.register()
    yield example_module
    for id in [id for id in registry._REGISTRY if id.startswith("example.")]:
        del registry._REGISTRY[id], registry._HOMES[id]
