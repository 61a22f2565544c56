"""RemoteBody in a user's own loop, against real processes over real HTTP."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import microsfl
from examples.remote_body import SPEC, train
from microsfl.core.formats import compress, expand
from microsfl.errors import InputError, InvalidId, RunNotActive, RunNotFound, TensorMismatch, Unreachable
from microsfl.launch.control import Control
from microsfl.spec import RunSpec
from microsfl.zoo.parts import build_parts

names = (f"run-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[microsfl.Federation]:
    with microsfl.Federation(SPEC, folder=tmp_path_factory.mktemp("federation") / "run") as federation:
        yield federation


def start(federation: microsfl.Federation, **tables: dict[str, object]) -> RunSpec:
    """A further unmanaged run on the same servers."""
    run = {"name": next(names), "managed": False}
    spec = RunSpec.parse({"run": run, **tables}).resolved(input_shape=(1, 8, 8), classes=10)
    control = Control(federation.coordinator, spec.run.name)
    control.create(spec)
    control.start()
    return spec


def remote(federation: microsfl.Federation, spec: RunSpec, **options: str) -> microsfl.RemoteBody:
    return microsfl.RemoteBody(run=spec.run.name, coordinator=federation.coordinator, **options)


def batches(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(1)
    for _ in range(count):
        yield torch.rand(32, 1, 8, 8, generator=random), torch.randint(0, 10, (32,), generator=random)


def test_the_example_s_loop_learns_the_digits(federation: microsfl.Federation) -> None:
    assert train(federation.coordinator, epochs=8) >= 0.9


ADAM = {"sync": 1, "body_optimizer": {"name": "Adam", "lr": 0.01}}


def test_law_1_over_http_a_commit_per_batch_is_local_training(federation: microsfl.Federation) -> None:
    spec = start(federation, strategy=ADAM)
    trains_as_here(remote(federation, spec), spec)


def trains_as_here(body: microsfl.RemoteBody, spec: RunSpec) -> None:
    """The same loop twice: once with the body here, once there. Equal to the bit, Adam and all."""
    there, here = copy.deepcopy(build_parts(spec, ())), copy.deepcopy(build_parts(spec, ()))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the servers have it: the number of threads decides the order of a sum
    losses = []
    for front, middle, tail, parameters in (
        (there.front, body, there.tail, [*there.front.parameters(), *there.tail.parameters()]),
        (
            here.front,
            here.body,
            here.tail,
            [*here.front.parameters(), *here.body.parameters(), *here.tail.parameters()],
        ),
    ):
        step = torch.optim.Adam(parameters, lr=0.01)
        for x, y in batches(20):
            loss = nn.functional.cross_entropy(tail(middle(front(x))), y)
            loss.backward()
            step.step()
            step.zero_grad()
            losses.append(loss.item())
    torch.set_num_threads(threads)
    assert losses[:20] == losses[20:]
    weights = body.weights()
    assert weights.keys() == here.body.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in here.body.state_dict().items())
    assert torch.equal(there.front.fc1.weight, here.front.fc1.weight)  # type: ignore[arg-type]


def test_a_frozen_front_still_trains_the_body(federation: microsfl.Federation) -> None:
    spec = start(federation, strategy={"sync": 1})
    body = remote(federation, spec)
    before = body.weights()
    outputs = body(torch.rand(4, 64))
    assert outputs.requires_grad
    outputs.sum().backward()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in body.weights().items())


def test_evaluation_leaves_no_trace(federation: microsfl.Federation) -> None:
    spec = start(federation, strategy={"sync": 1})
    body = remote(federation, spec)
    x = torch.rand(4, 64)
    before = sorted(path for path in federation.path.rglob("*") if spec.run.name in str(path))
    with torch.no_grad():
        unrecorded = body(x)
    body.eval()
    evaluated = body(x.requires_grad_())
    assert not unrecorded.requires_grad
    assert not evaluated.requires_grad
    local = build_parts(spec, ()).body.eval()
    local.load_state_dict(body.weights())
    torch.testing.assert_close(evaluated, local(x.detach()))
    assert sorted(path for path in federation.path.rglob("*") if spec.run.name in str(path)) == before


def test_it_has_no_parameters_and_describes_itself(federation: microsfl.Federation) -> None:
    spec = start(federation)
    body = remote(federation, spec, client="me")
    assert list(body.parameters()) == []
    assert repr(body) == f"RemoteBody(run='{spec.run.name}', client='me', round=0)"


def test_a_round_that_is_closed_is_one_step_on_the_mean(federation: microsfl.Federation) -> None:
    """Two participants, sync = "round": nothing moves until someone closes the round."""
    spec = start(federation, strategy={"body_optimizer": {"name": "SGD", "lr": 0.5}})
    first, second = remote(federation, spec), remote(federation, spec)
    local = copy.deepcopy(build_parts(spec, ()).body)
    gradients = []
    for body, (x, _) in zip((first, second), batches(2), strict=True):
        body(x.flatten(1)).square().mean().backward()
        gradients.append(torch.autograd.grad(local(x.flatten(1)).square().mean(), list(local.parameters())))
    assert all(torch.equal(tensor, first.weights()[name]) for name, tensor in local.state_dict().items())
    assert first.close_round() == 1
    assert first.round == 1
    for (name, parameter), one, other in zip(local.named_parameters(), *gradients, strict=True):
        torch.testing.assert_close(first.weights()[name], parameter - 0.5 * (one + other) / 2, rtol=1e-6, atol=1e-7)


def test_the_same_client_id_replays_and_adds_nothing(federation: microsfl.Federation) -> None:
    spec = start(federation, strategy={"sync": 1})
    x = torch.rand(4, 64)
    for _ in range(2):
        remote(federation, spec, client="again")(x).sum().backward()
    files = list(federation.path.rglob(f"*/{spec.run.name}/rounds/0/gradients/again/*"))
    assert [file.name for file in files] == ["0.safetensors"]
    commits = list(federation.path.rglob(f"*/{spec.run.name}/body/*/commit.json"))
    assert len(commits) == 2  # version 0 and the one commit


def test_tensors_travel_as_the_run_says(federation: microsfl.Federation) -> None:
    """The same as with the body here, and every tensor that crosses a cut rounded on its way."""
    wire = {"activations": "int8", "gradients": "int8"}
    spec = start(federation, strategy={"sync": 1, "body_optimizer": {"name": "SGD", "lr": 0.5}}, wire=wire)
    body, local = remote(federation, spec), copy.deepcopy(build_parts(spec, ()).body)
    step, lacking = torch.optim.SGD(local.parameters(), lr=0.5), torch.zeros(())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the servers have it: the number of threads decides the order of a sum
    for x, _ in batches(3):
        activations = x.flatten(1).requires_grad_()
        outputs = body(activations)
        arrived = expand(*compress(activations.detach(), "int8")).requires_grad_()
        computed = local(arrived)
        assert torch.equal(outputs, expand(*compress(computed.detach(), "int8")))
        outputs.square().mean().backward()
        gradient = 2 * outputs.detach() / outputs.numel() + lacking
        sent = expand(*compress(gradient, "int8"))
        lacking = gradient - sent
        computed.backward(sent)
        step.step()
        step.zero_grad()
        assert arrived.grad is not None
        assert activations.grad is not None
        _, scale = compress(arrived.grad, "int8")
        assert scale is not None
        assert ((activations.grad - arrived.grad).abs() <= 1.001 * scale).all()
        assert not torch.equal(activations.grad, arrived.grad)
    torch.set_num_threads(threads)
    assert all(torch.equal(tensor, body.weights()[name]) for name, tensor in local.state_dict().items())
    with torch.no_grad():
        evaluated = expand(*compress(local.eval()(expand(*compress(x.flatten(1), "int8"))), "int8"))
        torch.testing.assert_close(body(x.flatten(1)), evaluated)


def test_what_is_wrong_is_named(federation: microsfl.Federation) -> None:
    spec = start(federation)
    url = federation.coordinator
    with pytest.raises(RunNotFound, match="nothing-here"):
        microsfl.RemoteBody(run="nothing-here", coordinator=url)
    with pytest.raises(InvalidId):
        microsfl.RemoteBody(run="../etc", coordinator=url)
    with pytest.raises(InvalidId):
        microsfl.RemoteBody(run=spec.run.name, coordinator=url, client="a/b")
    with pytest.raises(Unreachable):
        microsfl.RemoteBody(run=spec.run.name, coordinator="http://127.0.0.1:9", retry_s=0.1)
    with pytest.raises(TensorMismatch, match=r"float32\[4, 63\]"):
        remote(federation, spec)(torch.rand(4, 63))
    idle = RunSpec.parse({"run": {"name": next(names), "managed": False}}).resolved(input_shape=(1, 8, 8), classes=10)
    Control(url, idle.run.name).create(idle)
    with pytest.raises(RunNotActive, match="created, not running"):
        microsfl.RemoteBody(run=idle.run.name, coordinator=url)
    managed = RunSpec.parse({"run": {"name": next(names)}}).resolved(input_shape=(1, 8, 8), classes=10)
    Control(url, managed.run.name).create(managed)
    with pytest.raises(InputError, match="managed"):
        microsfl.RemoteBody(run=managed.run.name, coordinator=url)


def test_the_database_and_the_coordinator_saw_no_tensor(federation: microsfl.Federation) -> None:
    """Law 6 on disk: the coordinator's database is small text, whatever went through the split servers."""
    database = Path(federation.path) / "coordinator.db"
    assert database.stat().st_size < 200_000
    assert b"safetensors" not in database.read_bytes()
