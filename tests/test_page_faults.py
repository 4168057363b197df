"""Fresh pages are counted, and kept memory asks for none."""

from __future__ import annotations

import platform

import numpy as np
import pytest

from fastgen_course.runtimes.page_faults import compare_allocators, faults_a_call

pytest.importorskip("resource")


def test_touching_fresh_memory_is_counted_page_by_page():
    import mmap

    size = 400 * mmap.PAGESIZE

    def touch():
        with mmap.mmap(-1, size) as fresh:
            np.frombuffer(fresh, np.uint8)[:: mmap.PAGESIZE].sum()

    block = np.ones(size, np.uint8)

    def touch_again():
        block[:: mmap.PAGESIZE].sum()

    assert faults_a_call(touch) >= 0.9 * 400 or platform.system() != "Linux"
    assert faults_a_call(touch_again) < 40


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_kept_memory_is_not_cleared_again():
    rows = compare_allocators(batch=16)
    assert rows["kept"].faults <= rows["handed back"].faults
    assert rows["kept"].faults < 100
    assert all(row.ms > 0 for row in rows.values())


def test_another_system_says_so(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    with pytest.raises(OSError, match="no glibc"):
        compare_allocators()
