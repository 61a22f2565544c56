"""What the launcher has to know, or to write, that takes torch: a child of the fork server does it, so that the
launcher need not spend a second on importing torch as well.

The coordinator starts such a child too, as `python -m microsfl.launch.aside FUNCTION`.

Questions and answers are JSON. Where nothing can be forked, this process does it itself; so it does when the child has
no answer, and what went wrong with it is raised here then.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from ..errors import MicrosflError, OperationError, from_wire
from ..process import end_with_parent
from .forks import Forks, Job, Unforked, child_environment

STDERR = 2

Json = dict[str, Any]


def aside(forks: Forks, function: str, question: Json) -> Json:
    """What `function`, "module:function" from JSON to JSON, answers.

    Raises:
        MicrosflError: when that is what the function raises.
    """
    try:
        answer = _ask(forks, Job("launcher", "microsfl.launch.aside:main", [function], child_environment()), question)
    except Unforked:
        return _named(function)(question)
    if "error" in answer:
        raise from_wire(0, answer)
    return answer


def _ask(forks: Forks, job: Job, question: Json) -> Json:
    child = forks.start(job, STDERR)
    try:
        child.stdin.write(json.dumps(question).encode() + b"\n")
        answer = child.stdout.readline()
        if not answer.endswith(b"\n"):
            raise Unforked("it has no answer")
    except OSError as error:  # it ended before it had read the question
        raise Unforked(str(error)) from None
    finally:
        child.kill()
        child.wait()
    return dict(json.loads(answer))


def main(*, alone: bool = False) -> None:
    """The child: a question on standard input, the answer on what was standard output.

    alone: nobody does it again after it, so what is not installed has to be named in the answer.
    """
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as output:
        os.dup2(STDERR, sys.stdout.fileno())  # a user's model or data set may print
        question = json.loads(sys.stdin.buffer.readline())
        end_with_parent()
        try:
            answer = _named(sys.argv[1])(question)
        except MicrosflError as error:
            answer = error.to_wire()
        except ModuleNotFoundError as error:
            if not alone:
                sys.exit(1)
            answer = OperationError(
                f"It takes '{error.name}', which is not installed where the coordinator runs. Do it with `microsfl run "
                "--coordinator` on a machine that has it."
            ).to_wire()
        except Exception:  # noqa: BLE001 - the parent does it again, where it is seen by whoever can catch it
            sys.exit(1)
        sys.stdout.flush()
        output.write(json.dumps(answer).encode() + b"\n")


def _named(function: str) -> Callable[[Json], Json]:
    module, name = function.split(":")
    found: Callable[[Json], Json] = getattr(import_module(module), name)
    return found


if __name__ == "__main__":
    main(alone=True)
