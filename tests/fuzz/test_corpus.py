"""What the fuzzer found worth keeping, read again: it covers every branch that twelve minutes of it reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.seeds import LONGEST, seeds
from tests.fuzz.wire_target import KINDS, check

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name[:12])
def test_the_corpus_is_refused_or_means_one_thing(path: Path) -> None:
    check(path.read_bytes())


def test_what_the_fuzzer_begins_with_is_read_as_it_is_meant() -> None:
    found = [check(body) for body in seeds()]
    assert {kind.__name__ for kind in KINDS} <= {*found}
    assert found.count("refused") > 30


def test_the_corpus_is_small() -> None:
    assert 20 < len(CORPUS) < 200
    assert max(len(path.read_bytes()) for path in CORPUS) <= LONGEST
