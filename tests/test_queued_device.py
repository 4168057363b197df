"""The simulated accelerator: a launch returns before its kernel ends, and waiting waits for all."""

from __future__ import annotations

import threading

import pytest

from fastgen_course.runtimes.queued_device import QueuedDevice


def test_a_launch_returns_first_and_synchronise_waits_for_all():
    may_start, ran = threading.Event(), []
    with QueuedDevice() as device:
        device.launch(may_start.wait)
        for n in range(3):
            device.launch(lambda n=n: ran.append(n))
        assert device.finished == 0 and ran == []  # all are queued behind the first
        may_start.set()
        device.synchronize()
        assert device.finished == 4 and ran == [0, 1, 2]
    with pytest.raises(RuntimeError, match="closed"):
        device.launch(lambda: None)
    device.close()
