"""How many threads an operation uses, as OpenMP sees it: torch's own word is right only once it has asked."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from microsfl.client.background import Background, Senders
from microsfl.device import use_threads


@pytest.fixture
def openmp() -> Callable[[], int]:
    """The number that OpenMP would use on the calling thread."""
    for library in (Path(torch.__file__).parent / "lib").glob("libgomp*"):
        return ctypes.CDLL(str(library)).omp_get_max_threads  # type: ignore[no-any-return]
    pytest.skip("This build of torch brings no OpenMP library of its own.")


def test_threads_of_ours_use_as_many_as_the_one_that_made_them(openmp: Callable[[], int]) -> None:
    """One; a thread that nobody told would use as many as there are cores."""
    found: list[int] = []
    use_threads(1)
    with Senders(1) as senders, Background(1) as background:
        found.append(senders.submit(openmp)())
        background.put(lambda: found.append(openmp()))
        background.wait()
    assert found == [1, 1]
