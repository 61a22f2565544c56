"""`microsfl verify`: every file of a finished run damaged in every way, one at a time, and named each time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from microsfl.cli import main
from microsfl.core.unit import UnitKey
from microsfl.errors import StoreCorrupt
from microsfl.store.objects import open_store
from microsfl.sync import keys
from microsfl.sync.commits import Chain, Commit
from microsfl.sync.runs import load_run
from microsfl.sync.verify import Finding, Report, verify
from microsfl.wire.messages import Contribution
from tests.world import World, spec_of, toy_data

RUNS = ("toy", "other")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small runs that came to their end, in the two areas of one store; nobody changes it."""
    folder = tmp_path_factory.mktemp("finished")
    for seed, name in enumerate(RUNS):
        strategy = {"sync": 3, "body_optimizer": {"name": "Adam", "lr": 0.01}, "max_staleness": 1}
        world = World(spec_of(run={"name": name}, data={"clients": 2}, strategy=strategy), folder=folder)
        for number in range(2):
            world.join(f"c{number}", toy_data(samples=17, seed=2 * seed + number))
        world.run()
        for replica in world.split.replicas:
            assert replica.close
            replica.close()  # so that what it stores behind the answer is there, or gone
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return shutil.copytree(finished, tmp_path / "store")


def check(folder: Path, run: str | None = None) -> Report:
    return verify({area: open_store(f"file://{folder}/{area}") for area in ("body", "client")}, run)


def errors(report: Report) -> list[Finding]:
    return [finding for _, finding in report.findings if finding.severity == "error"]


def files_of(folder: Path, run: str = "toy") -> list[Path]:
    return sorted(path for area in ("body", "client") for path in (folder / area / "runs" / run).rglob("*.*"))


def key_of(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix().split("/", 1)[1]


def flipped(content: bytes, offset: int) -> bytes:
    return content[:offset] + bytes([content[offset] ^ 1]) + content[offset + 1 :]


def flip(path: Path) -> None:
    """Of what clients sent only the framing is covered, which begins with the header's length."""
    content = path.read_bytes()
    path.write_bytes(flipped(content, 0 if "rounds" in path.parts else len(content) // 2))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


@contextlib.contextmanager
def damaged(path: Path) -> Iterator[None]:
    content = path.read_bytes()
    try:
        yield
    finally:
        path.write_bytes(content)


def names(report: Report, key: str) -> bool:
    return any(key in f"{one.file} {one.expected} {one.found}" for one in errors(report))


def test_an_untouched_run_has_no_findings(finished: Path) -> None:
    report = check(finished)
    assert report.findings == ()
    assert report.runs == tuple(sorted(RUNS))
    assert report.files == sum(len(files_of(finished, run)) for run in RUNS) > 60


def test_the_run_has_every_kind_of_file(finished: Path) -> None:
    kinds = {path.name.split("-")[0].lstrip("0123456789") for path in files_of(finished)}
    assert {"run.json", "commit.json", "sealed.json", "weights", "optimizer", ".safetensors"} <= kinds


@pytest.mark.parametrize("damage", [flip, truncate, empty, append, Path.unlink])
def test_every_damaged_file_is_named(folder: Path, damage: object) -> None:
    assert callable(damage)
    newest = newest_commits(folder) if damage is Path.unlink else set()  # see the next test
    for path in files_of(folder):
        if path in newest:
            continue
        with damaged(path):
            damage(path)
            report = check(folder, "toy")
        assert names(report, key_of(folder, path)), path
    assert check(folder).findings == ()


def newest_commits(folder: Path) -> set[Path]:
    heads = {
        area: Chain(open_store(f"file://{folder}/{area}"), "toy", area).head().version
        for area in (keys.BODY, keys.CLIENT)
    }
    return {folder / area / keys.commit("toy", area, version) for area, version in heads.items()}


def test_a_run_without_its_newest_commit_is_one_that_ended_before_it(folder: Path) -> None:
    """Nothing can tell the two apart, and nothing needs to: the next close makes the same commit again."""
    path = next(path for path in newest_commits(folder) if path.parts[-3] == keys.BODY)
    content = path.read_bytes()
    path.unlink()
    report = check(folder, "toy")
    assert report.errors == 0
    assert path.parent.relative_to(folder / "body").as_posix() in report.findings[0][1].file
    world = World(load_run(open_store(f"file://{folder}/body"), "toy"), folder=folder)
    world.split.replicas[0].calls["/v1/reduce"]({"run": "toy", "round": 1})
    assert path.read_bytes() == content


def test_every_file_of_another_run_is_named(folder: Path) -> None:
    """The same place in another run: run.json for run.json, weights for weights, commit for commit."""
    others = {"-".join(p.as_posix().split("-")[:-1]) or p.as_posix(): p for p in files_of(folder, "other")}
    swapped = 0
    for path in files_of(folder):
        there = path.as_posix().replace("/runs/toy/", "/runs/other/")
        other = others.get("-".join(there.split("-")[:-1]) or there)
        if other is None or other.read_bytes() == path.read_bytes():
            continue
        with damaged(path):
            path.write_bytes(other.read_bytes())
            assert names(check(folder, "toy"), key_of(folder, path)), path
        swapped += 1
    assert swapped > 30


def test_every_changed_byte_of_a_commit_is_found(folder: Path) -> None:
    path = folder / "body/runs/toy/body/2/commit.json"
    content = path.read_bytes()
    for offset in range(0, len(content), 7):
        path.write_bytes(flipped(content, offset))
        assert errors(check(folder, "toy")), content[offset - 20 : offset + 20]


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_training_refuses_damaged_weights(folder: Path, damage: object) -> None:
    assert callable(damage)
    chain = Chain(open_store(f"file://{folder}/body"), "toy", keys.BODY)
    head = chain.head()
    for file in filter(None, (head.weights, head.optimizer)):
        path = folder / "body" / file.key
        with damaged(path):
            damage(path)
            with pytest.raises(StoreCorrupt, match=file.sha256):
                chain.read(file)


def test_a_forged_commit_that_counts_a_contribution_twice_is_named(folder: Path) -> None:
    store = open_store(f"file://{folder}/body")
    chain = Chain(store, "toy", keys.BODY)
    head = chain.head()
    taken = next(commit for commit in chain.back(head) if commit.contributions and commit.round == 1)
    forged = head.model_copy(
        update={"version": head.version + 1, "parent": head.version, "contributions": taken.contributions[:1]}
    )
    assert chain.create(forged)
    twice = keys.contribution(UnitKey("toy", 1, taken.contributions[0].client, taken.contributions[0].unit))
    assert any(twice in one.expected and "counted twice" in one.meaning for one in errors(check(folder)))
    assert names(check(folder), keys.commit("toy", keys.BODY, forged.version))


def test_a_changed_setting_is_found_by_comparing_the_areas(folder: Path) -> None:
    path = folder / "client/runs/toy/run.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    [finding] = errors(check(folder))
    assert (finding.file, finding.found) == ("runs/toy/run.json", "another run.seed")


def test_another_format_is_told_from_damage(folder: Path) -> None:
    path = folder / "body/runs/toy/run.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    [finding] = errors(check(folder))
    assert "format 2" in finding.found
    assert "Another version of microsfl" in finding.meaning


@pytest.mark.parametrize(
    ("key", "like", "meaning"),
    [
        ("body/runs/toy/rounds/0/gradients/c9/0.safetensors", "c9", "never acknowledged"),
        ("body/runs/toy/rounds/0/activations/c0/0.safetensors", None, "hand-over"),
        ("body/runs/toy/body/1/weights-{hash}.safetensors", None, "lost the race"),
        ("body/runs/toy/body/99/weights-{hash}.safetensors", None, "being made"),
        ("body/runs/toy/notes.txt", None, "Not a file of microsfl's"),
        ("body/runs/toy/body/01/commit.json", None, "Not a file of microsfl's"),
        ("body/runs/.. no run/x", None, "Not a file of microsfl's"),
        ("body/runs/toy/rounds/2/sealed.json", "{}", "being closed"),
    ],
)
def test_what_is_harmless_is_explained_and_no_error(folder: Path, key: str, like: str | None, meaning: str) -> None:
    content = b"left" if like is None else like.encode()
    if like == "c9":
        file = folder / "body/runs/toy/rounds/0/gradients/c0/0.safetensors"
        found = Contribution.unpack(file.read_bytes(), hashed=True)
        content = found.model_copy(update={"client": like}).pack(hashed=True)
    path = folder / key.replace("{hash}", "fbc1fc5e6eb6e5d12d8cf8ac4d0b9b0c" * 2)
    if "{hash}" in key:
        path = folder / key.replace("{hash}", hashlib.sha256(content).hexdigest())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    report = check(folder)
    [(_, note)] = report.findings
    assert (note.severity, report.errors) == ("note", 0)
    assert meaning.lower() in note.meaning.lower()
    assert note.file == path.relative_to(folder / "body").as_posix()


def test_an_unreadable_commit_does_not_make_its_files_orphans(folder: Path) -> None:
    (folder / "body/runs/toy/body/2/commit.json").write_bytes(b"{")
    report = check(folder, "toy")
    assert [finding.file for _, finding in report.findings] == ["runs/toy/body/2/commit.json"]


def test_it_reads_each_file_once_or_twice_and_writes_nothing(folder: Path) -> None:
    class Counting:
        def __init__(self) -> None:
            self.inner = open_store(f"file://{folder}/body")
            self.reads: dict[str, int] = {}
            self.list, self.exists = self.inner.list, self.inner.exists

        def get(self, key: str) -> bytes:
            self.reads[key] = self.reads.get(key, 0) + 1
            return self.inner.get(key)

    store = Counting()
    assert verify({"body": store}).errors == 0
    assert {key for key, times in store.reads.items() if times > 1} == {keys.spec(run) for run in RUNS}


# The command line


def microsfl(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


def test_a_sound_store_exits_with_0(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for target in (str(finished), finished.as_uri(), (finished / "body").as_uri()):
        assert microsfl("verify", target) == 0
        assert "no errors, 0 notes" in capsys.readouterr().out


def test_a_run_folder_means_its_two_areas(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished, tmp_path / "store")
    assert microsfl("verify", str(tmp_path), "--json", "--run", "toy") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["stores"] == [(tmp_path / "store" / area).as_uri() for area in ("body", "client")]
    assert (report["runs"], report["errors"]) == (["toy"], 0)


def test_a_damaged_store_exits_with_1_and_says_what_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "body/runs/toy/run.json").unlink()
    (folder / "body/runs/toy/body/1/commit.json").write_bytes(b"")
    assert microsfl("verify", str(folder)) == 1
    shown = capsys.readouterr().out
    assert "error  runs/toy/run.json" in shown
    assert "error  runs/toy/body/1/commit.json" in shown
    assert "Restore it from a backup" in shown
    assert microsfl("verify", str(folder), "--json") == 1
    assert json.loads(capsys.readouterr().out)["errors"] == 2


def test_many_notes_of_one_kind_are_shortened(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(9):
        path = folder / f"body/runs/toy/rounds/0/activations/c0/{number}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left")
    assert microsfl("verify", str(folder)) == 0
    shown = capsys.readouterr().out
    assert shown.count("  note ") == 3
    assert "and 6 more" in shown


@pytest.mark.parametrize("command", ["verify", "gc"])
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["{tmp}/nowhere"], "There is no folder"),
        (["file://{tmp}/nowhere"], "There is no folder"),
        (["{tmp}"], "neither a run folder"),
        (["file://{tmp}"], "has no run in it"),
        (["memory://"], "lives within one process"),
        (["ftp://x/y"], "not known"),
        (["{store}", "--run", "tou"], "Did you mean 'toy'"),
        (["{store}", "--run", "../x"], "not allowed"),
        ([], "Missing argument"),
    ],
)
def test_wrong_input_is_one_line(
    command: str,
    arguments: list[str],
    complaint: str,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"tmp": str(tmp_path), "store": str(finished)}
    assert microsfl(command, *(one.format(**places) for one in arguments)) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_commit_s_format_is_the_one_that_it_speaks_of() -> None:
    assert Commit.model_fields["format"].default == 1
