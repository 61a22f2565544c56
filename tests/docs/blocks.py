"""The code blocks of a page, and a reader who does what they say, in their order, in a folder of its own.

- `sh`: each line is a command; a failing one fails the page.
- `python`: run in one namespace a page. One whose first line is a comment with a file name is saved under that name.
- `toml`: saved likewise, and read as the configuration of a run or of a comparison.
- `json`, `yaml`: parsed.
- `text`: what the block before it printed; numbers may differ, an accuracy by a tenth; `…` stands for whatever comes.
- `diff`: applied to the file that was saved last and has the lines that it names.

HTML comments before a block say what a reader does not see: `not run: WHY` leaves it out; `keeps running` starts each
of its lines as a process that is up once it says that it is ready; `before: COMMAND` is done first.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import microsfl
from microsfl.compare.config import parse_comparison
from microsfl.spec import RunSpec

BLOCK = re.compile(r"((?:^<!-- [^\n]* -->\n)*)^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!-- ([^:\n]+?)(?:: (.*?))? -->")
FILE = re.compile(r"# ([\w-]+\.(?:py|toml))(?: .*)?\n")
NUMBER = re.compile(r"\d[\d,.]*\d|\d|\b[0-9a-f]{12}\b")
TOLERANCE = 0.1
TIMEOUT_S = 240


@dataclass(frozen=True)
class Block:
    """language: of the fence. comments: what stands before it, by its first words. line: where it begins."""

    language: str
    text: str
    comments: dict[str, str]
    line: int

    @property
    def file(self) -> str | None:
        """The name that its content is saved under."""
        found = FILE.match(self.text)
        return found.group(1) if found else None


def blocks_of(page: str) -> list[Block]:
    return [
        Block(found[2], found[3], dict(COMMENT.findall(found[1])), page[: found.start(2)].count("\n") + 1)
        for found in BLOCK.finditer(page)
    ]


@dataclass
class Reader:
    """Follows a page in `folder`. ports: the numbers in the text, each replaced by a free one."""

    folder: Path
    ports: dict[str, str] = field(default_factory=dict)
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    saved: list[Path] = field(default_factory=list)
    running: list[subprocess.Popen[str]] = field(default_factory=list)
    printed: str = ""

    def follow(self, block: Block) -> None:
        """Do what the block says. Raises AssertionError when it does not do what the page promises."""
        if "not run" in block.comments:
            return
        if "before" in block.comments:
            self.printed = self._shell(block.comments["before"])
        text = self._replaced(block.text)
        match block.language:
            case "sh":
                self._keep_running(text) if "keeps running" in block.comments else self._lines(text)
            case "python" if block.file is None:
                self._python(text, block.line)
            case "python":
                compile(text, str(block.file), "exec")
                self._save(str(block.file), text)
            case "toml":
                values = tomllib.loads(text)
                parse_comparison(values) if "compare" in values else RunSpec.parse(values)
                if block.file is not None:
                    self._save(block.file, text)
            case "json":
                json.loads(text)
            case "yaml":
                yaml.safe_load(text)
            case "text":
                complaint = missing(block.text, self.printed)
                assert complaint is None, f"{complaint}\nprinted was:\n{self.printed}"
            case "diff":
                self._apply(text)
            case other:
                raise AssertionError(f"line {block.line}: nobody knows what to do with a block of '{other}'")

    def leave(self) -> None:
        """End what keeps running, and forget the modules that the page saved."""
        for name in {file.stem for file in self.saved} & sys.modules.keys():
            del sys.modules[name]
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()

    def _replaced(self, text: str) -> str:
        for port, free in self.ports.items():
            text = re.sub(rf"\b{port}\b", free, text)
        return text

    def _save(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, "utf-8")
        self.saved.append(self.folder / name)

    def _lines(self, text: str) -> None:
        self.printed = "".join(self._shell(command) for command in commands(text))

    def _shell(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command} exits with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def _keep_running(self, text: str) -> None:
        for number, command in enumerate(commands(text)):
            log = self.folder / f"kept-{len(self.running)}-{number}.log"
            with log.open("w") as errors:
                process = subprocess.Popen(
                    ["bash", "-c", f"exec {command}"],
                    cwd=self.folder,
                    env=environment(),
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    stdin=subprocess.DEVNULL,
                    text=True,
                )
            self.running.append(process)
            assert process.stdout
            ready = process.stdout.readline()
            assert "ready" in ready, f"{command} does not get ready:\n{ready}{log.read_text()}"

    def _python(self, text: str, line: int) -> None:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.chdir(self.folder):
            sys.path.insert(0, str(self.folder))
            try:
                exec(compile("\n" * line + text, "page", "exec"), self.names)
            finally:
                sys.path.remove(str(self.folder))
        self.printed = printed.getvalue()

    def _apply(self, text: str) -> None:
        lines = text.splitlines(keepends=True)
        before, after = ("".join(line[2:] or "\n" for line in lines if line[0] in kept) for kept in (" -\n", " +\n"))
        for file in reversed(self.saved):
            if file.read_text("utf-8").count(before) == 1:
                file.write_text(file.read_text("utf-8").replace(before, after), "utf-8")
                return
        raise AssertionError(f"No file that the page names has these lines:\n{before}")


def commands(text: str) -> list[str]:
    """The commands of a block: a line each, unless it ends in a backslash."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def environment() -> dict[str, str]:
    """As after `. .venv/bin/activate`, with the package that is tested."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    source = str(Path(microsfl.__file__).parent.parent)
    # One thread, as the services have it: several crawl on small operations where other tests want the cores as well.
    fixed = {"PYTHONUNBUFFERED": "1", "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **fixed, "PATH": path, "PYTHONPATH": source}


def free_ports(numbers: list[str]) -> dict[str, str]:
    """A free port for each number. They are all bound at once, so that they differ."""
    with contextlib.ExitStack() as stack:
        found = {}
        for number in numbers:
            taken = stack.enter_context(socket.socket())
            taken.bind(("127.0.0.1", 0))
            found[number] = str(taken.getsockname()[1])
    return found


def missing(expected: str, printed: str) -> str | None:
    """The first expected line that was not printed after the ones before it."""
    rest = printed.splitlines()
    for line in expected.splitlines():
        if line.strip() in ("…", ""):
            continue
        while rest and not alike(line, rest[0]):
            rest.pop(0)
        if not rest:
            return f"missing: {line}"
        rest.pop(0)
    return None


def alike(expected: str, printed: str) -> bool:
    """Whether two lines differ in numbers and white space alone, and an accuracy by `TOLERANCE` at most."""
    start, _, _ = expected.partition("…")
    shape, found = masked(start), masked(printed)
    if not (found.startswith(shape) if "…" in expected else found == shape):
        return False
    promised, reached = (re.findall(r"accuracy[ a-z]*\s+([01]\.\d+)", line) for line in (expected, printed))
    pairs = zip(promised, reached, strict=False)  # an expected line may end earlier
    return all(abs(float(one) - float(other)) <= TOLERANCE for one, other in pairs)


def masked(line: str) -> str:
    return re.sub(r"[\s─-╿]+", " ", NUMBER.sub("#", line)).strip()
