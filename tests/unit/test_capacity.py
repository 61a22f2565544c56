"""`microsfl plan`: quantities, queues, counts against real trainings, the simulation against the formulas."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import plan as benchmark
from benchmarks.pages import between, write_between
from microsfl.capacity import command
from microsfl.capacity.calibration import Calibration, Round, Unit
from microsfl.capacity.demands import coordinator_s, demands
from microsfl.capacity.fit import fit
from microsfl.capacity.places import Cores, Place
from microsfl.capacity.prediction import CORES, SPLIT, predict, replicas_for
from microsfl.capacity.probe import Seen
from microsfl.capacity.quantities import duration, frequency, rate, shown_bytes, shown_seconds
from microsfl.capacity.queueing import Cycles, Station, bound, round_seconds, solve
from microsfl.capacity.simulation import simulate
from microsfl.capacity.site import S3, Site
from microsfl.capacity.volume import cost, volume
from microsfl.capacity.workload import Sizes, Workload, as_json, sizes_of
from microsfl.cli import main
from microsfl.errors import InvalidSetting
from microsfl.launch.profile_rows import Row
from microsfl.spec import RunSpec
from microsfl.store.objects import ObjectStore
from microsfl.zoo.parts import build_parts
from tests.world import ALLOWED, World, spec_of, toy_data

ROOT = Path(__file__).parents[2]
HEADER_BYTES = 1000  # of a message, at most

UNIT = Unit(
    samples=32, client_compute=0.001, client=0.002, client_cpu=0.002, server_compute=0.002, server=0.004,
    server_cpu=0.004, store=0.0005, wait=0.0001,
)  # fmt: skip
ROUND = Round(
    client=0.002, evaluation=0.001, evaluated=32, coordinator=0.002, coordinator_fixed=0.005, fed_server=0.001,
    turnaround=0.01, sync=0.01, reduce=0.005, reduce_each=0.0001, aggregate=0.002, aggregate_each=0.0005,
)  # fmt: skip
SIZES = Sizes(256.0, 256.0, 1.0, 16_640, 33_288, 19_240, 0, 24_576)
SPEC = RunSpec.parse({"strategy": {"unit": 1}})


def planned(clients: int = 4, samples: int = 320, **tables: dict[str, Any]) -> Workload:
    spec = RunSpec.parse({"strategy": {"unit": 1}, **tables})
    return Workload(spec, (samples,) * clients, (0,) * clients, clients, SIZES)


CALIBRATION = Calibration(UNIT, ROUND, 0.0002, 300_000_000, as_json(planned()), "here", "nothing")


# Quantities


@given(number=st.integers(1, 10**6))
def test_speeds_and_durations_are_read_in_their_units(number: int) -> None:
    assert rate(f"{number}Mbit/s") == pytest.approx(number * 125_000)
    assert rate(f"{number} MB/s") == pytest.approx(8 * rate(f"{number}Mbps"))
    assert duration(f"{number}ms") == pytest.approx(number / 1000)
    assert duration(f"{number}min") == pytest.approx(60 * number)
    assert frequency(f"{number}/s") == number


@pytest.mark.parametrize(
    ("text", "parse", "says"),
    [
        ("20", rate, "has no unit; write it like 20Mbit/s"),
        ("20Mbit", rate, "there is no unit 'Mbit'"),
        ("20mbit/s", rate, "Did you mean '20Mbit/s'?"),
        ("fast", rate, "is not a speed; write it like 20Mbit/s"),
        ("-5ms", duration, "is not a duration; write it like 40ms"),
        ("0Mbit/s", rate, "must be above 0"),
        ("40 parsec", duration, "there is no unit 'parsec' of a duration"),
        ("5/h", frequency, "write it like 3500/s"),
        (f"{'9' * 400}Mbit/s", rate, "too large"),
    ],
)
def test_a_wrong_quantity_is_refused_with_what_is_right(text: str, parse: Any, says: str) -> None:
    with pytest.raises(InvalidSetting, match=says.replace("?", r"\?")):
        parse(text)


def test_quantities_are_shown_in_the_unit_that_fits() -> None:
    assert [shown_seconds(one) for one in (0, 2e-6, 0.0123, 1.5, 61, 9000, math.inf)] == [
        "0.00 s", "2.00 µs", "12.3 ms", "1.50 s", "61.0 s", "2.50 h", "never ends",
    ]  # fmt: skip
    assert [shown_bytes(one) for one in (12, 1234, 5e6, 7.1e12)] == ["12 B", "1.23 kB", "5.00 MB", "7.10 TB"]


# Queues

positive = st.floats(1e-4, 10.0)
populations = st.integers(1, 300)


@given(population=populations, think=st.floats(0, 10), demand=positive, servers=st.integers(1, 50), other=positive)
@settings(max_examples=60, deadline=None)
def test_a_flow_keeps_to_its_bounds_and_to_little_s_law(
    population: int, think: float, demand: float, servers: int, other: float
) -> None:
    stations = [Station("a", demand, servers), Station("b", other)]
    flow = solve(population, think, stations)
    assert flow.throughput <= bound(population, think, stations) * (1 + 1e-6)
    assert flow.throughput * flow.cycle == pytest.approx(population)
    assert flow.cycle >= think + demand + other - 1e-9
    assert all(0 <= share <= 1 + 1e-6 for share in flow.utilisation.values())
    assert solve(1, think, stations).cycle == pytest.approx(think + demand + other)


@given(population=populations, think=st.floats(0, 1), demand=positive, servers=st.integers(1, 30), kept=st.booleans())
@settings(max_examples=60, deadline=None)
def test_more_servers_are_never_slower(population: int, think: float, demand: float, servers: int, kept: bool) -> None:
    fewer, more = (solve(population, think, [Station("a", demand, n, kept)]) for n in (servers, servers + 1))
    assert more.throughput >= fewer.throughput * (1 - 1e-6)


def test_a_saturated_station_is_its_own_limit() -> None:
    flow = solve(1000, 0.1, [Station("a", 0.05, 4)])
    assert flow.throughput == pytest.approx(4 / 0.05, rel=0.01)
    assert flow.utilisation["a"] == pytest.approx(1.0, rel=0.01)


@given(work=st.lists(st.integers(1, 30), min_size=1, max_size=20), slots=st.integers(1, 20))
@settings(deadline=None)
def test_a_round_of_customers_that_do_not_disturb_each_other_lasts_as_long_as_the_last_of_them(
    work: list[int], slots: int
) -> None:
    seconds, busy = round_seconds(work, slots, lambda _: 0.5)
    assert seconds >= 0.5 * max(max(work), math.ceil(sum(work) / slots)) - 1e-9
    assert seconds <= 0.5 * (sum(work) / min(slots, len(work)) + max(work)) + 1e-9
    assert busy * seconds == pytest.approx(0.5 * sum(work))


def test_cycles_in_between_are_interpolated() -> None:
    cycles = Cycles(lambda n: solve(n, 1.0, [Station("a", 0.1)]))
    exact = [solve(n, 1.0, [Station("a", 0.1)]).cycle for n in range(1, 200)]
    assert [cycles(n) for n in range(1, 200)] == pytest.approx(exact, rel=0.02)


# Predictions

sites = st.builds(
    Site,
    replicas=st.integers(1, 40),
    client_speed=st.floats(0.1, 10),
    server_speed=st.floats(0.1, 100),
    up=st.floats(1e5, 1e9),
    down=st.floats(1e5, 1e9),
    rtt=st.floats(0, 0.3),
    server_link=st.floats(1e6, 1e10),
    store_latency=st.floats(0, 0.1),
    spread=st.sampled_from(["sticky", "random", "two"]),
)


@given(site=sites, clients=st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_what_is_faster_or_more_never_makes_a_round_longer(site: Site, clients: int) -> None:
    workload = planned(clients)
    seconds = predict(workload, CALIBRATION, site).round
    better = {
        "replicas": site.replicas + 1, "up": 2 * site.up, "down": 2 * site.down, "rtt": site.rtt / 2,
        "server_link": 2 * site.server_link, "client_speed": 2 * site.client_speed,
        "server_speed": 2 * site.server_speed, "store_latency": site.store_latency / 2,
    }  # fmt: skip
    for name, value in better.items():
        assert predict(workload, CALIBRATION, replace(site, **{name: value})).round <= seconds * (1 + 1e-4), name
    assert predict(planned(clients + 1), CALIBRATION, site).round >= seconds * (1 - 1e-4)


def test_one_client_alone_takes_what_it_asks_for() -> None:
    site = Site(1, up=1e6, down=2e6, rtt=0.04)
    workload = planned(1, 320)
    asked = demands(workload, CALIBRATION, site)
    assert asked.link == pytest.approx(2 * 0.04 + 32 * 512 / 1e6 + 32 * 512 / 2e6)
    assert asked.alone == pytest.approx(UNIT.client + UNIT.server + UNIT.wait + asked.link)
    assert predict(workload, CALIBRATION, site).training == pytest.approx(10 * asked.alone)


def test_cores_that_are_shared_are_the_limit_of_one_machine() -> None:
    found = predict(planned(8), CALIBRATION, Site(4, cores=2, processes=4))
    assert found.utilisation[CORES] == pytest.approx(1.0, abs=1e-3)
    assert found.training == pytest.approx(8 * 10 * (UNIT.client_cpu + UNIT.server_cpu) / 2, rel=0.02)
    assert predict(planned(8), CALIBRATION, Site(4, cores=64, processes=4)).training < found.training


def test_the_coordinator_is_asked_by_signs_of_life_too() -> None:
    quiet, site = replace(CALIBRATION, heartbeat=0.0), Site(1)
    work = (ROUND.coordinator_fixed + 1000 * ROUND.coordinator) / 2
    assert coordinator_s(planned(1000), quiet, site, 1000) == pytest.approx(work)
    beats = 1000 * CALIBRATION.heartbeat
    took = coordinator_s(planned(1000), CALIBRATION, site, 1000)
    assert took == pytest.approx(work + beats * took / (took + 3), rel=0.01)


def test_the_fewest_split_servers_that_are_enough_are_found() -> None:
    workload, site = planned(200), Site(1, rtt=0.01)
    for target in ({"within_s": 0.9}, {"utilisation": 0.5}):
        found = replicas_for(workload, CALIBRATION, site, **target)
        assert found is not None
        assert found > 1
        fits = predict(workload, CALIBRATION, replace(site, replicas=found))
        fewer = predict(workload, CALIBRATION, replace(site, replicas=found - 1))
        if "within_s" in target:
            assert fits.round <= 0.9 < fewer.round
        else:
            assert fits.utilisation[SPLIT] <= 0.5 < fewer.utilisation[SPLIT]
    assert replicas_for(workload, CALIBRATION, site, within_s=1e-6) is None


# Counts, against real trainings

strategies = st.sampled_from(["filesync", "sflv1", "cse-fsl", "fedavg", "sflv2"])


@given(
    name=strategies,
    samples=st.integers(2, 40),
    epochs=st.integers(1, 3),
    u_shaped=st.booleans(),
    format_=st.sampled_from(["float32", "bfloat16"]),
)
@settings(max_examples=40, deadline=None)
def test_bytes_and_requests_are_those_of_a_real_training(
    name: str, samples: int, epochs: int, u_shaped: bool, format_: str
) -> None:
    cut = name != "fedavg"
    world, workload = _trained(
        samples,
        strategy={"name": name, "local_epochs": epochs},
        model={"u_shaped": u_shaped} if cut else {},
        wire={"activations": format_} if cut else {},
    )
    up, down, requests = workload.crossing(samples)
    trainer = world.trainers["one"]
    assert len(world.split.requests) == requests
    for counted, tensors in ((trainer.split.traffic.up, up), (trainer.split.traffic.down, down)):
        assert tensors <= counted <= tensors + HEADER_BYTES * requests
    up, down, requests = workload.handed()
    for counted, tensors in ((trainer.fed.traffic.up, up), (trainer.fed.traffic.down, down)):
        assert tensors <= counted <= tensors + HEADER_BYTES * requests


@pytest.mark.parametrize("name", ["filesync", "sflv1", "sflv2", "sl", "cse-fsl", "fedavg", "local"])
@pytest.mark.parametrize(("clients", "replicas"), [(1, 1), (3, 1), (4, 3)])
def test_files_and_requests_to_the_store_are_those_of_a_real_round(name: str, clients: int, replicas: int) -> None:
    spec = spec_of(run={"rounds": 4}, data={"clients": clients}, strategy={"name": name})
    world = World(spec, replicas=replicas)
    for number in range(clients):
        world.join(f"c{number}", toy_data(24, number))
    world.round(0)
    before = _done(world)
    world.round(1)
    files, puts, gets = (after - one for after, one in zip(_done(world), before, strict=True))
    workload = Workload(spec, (24,) * clients, (0,) * clients, clients, _sizes(spec))
    found = volume(workload, Site(replicas))
    assert found.files == files
    assert found.puts == puts
    assert found.gets == pytest.approx(gets, rel=0.0 if name in ("filesync", "cse-fsl", "fedavg", "local") else 0.3)


def _done(world: World) -> tuple[int, int, int]:
    """(files, requests that write or list, requests that read) of both areas so far."""
    stores: list[ObjectStore] = [world.body_store, world.client_store]
    done = [{verb: one.operations for verb, one in store.tally.by_verb().items()} for store in stores]
    # No "write": on a machine that is so busy that a unit takes a second, its activations are handed to the store.
    puts = sum(one.get(verb, 0) for one in done for verb in ("create", "list"))
    gets = sum(one.get(verb, 0) for one in done for verb in ("read", "look_up"))
    files = sum(len(list(store.backend.list("runs/toy"))) for store in stores)
    return files, puts, gets


def _trained(samples: int, **tables: dict[str, Any]) -> tuple[World, Workload]:
    """One client that has trained a round."""
    spec = spec_of(run={"rounds": 1}, **tables)
    world = World(spec)
    world.join("one", toy_data(samples)).train(world.task("one", 0))
    return world, Workload(spec, (samples,), (0,), 1, _sizes(spec))


def _sizes(spec: RunSpec) -> Sizes:
    return sizes_of(spec, build_parts(spec, ALLOWED))


def test_money_is_requests_and_files_times_their_prices() -> None:
    moved = volume(planned(), Site(2))
    assert cost(moved, 10, 60.0, Site(1).prices) == 0
    requests = 10 * (moved.puts * 0.005 + moved.gets * 0.0004) / 1000
    kept = 10 * moved.stored / 1e9 * 0.023
    assert cost(moved, 10, 0.0, S3) == pytest.approx(requests + kept)


# Simulation


@pytest.mark.parametrize("spread", ["sticky", "random", "two"])
def test_one_simulated_client_takes_what_the_formulas_say(spread: Any) -> None:
    site = Site(4, up=1e6, down=2e6, rtt=0.04, spread=spread)
    workload = planned(1, 3200)
    predicted, played = predict(workload, CALIBRATION, site), simulate(workload, CALIBRATION, site)
    assert played.unit == pytest.approx(predicted.unit, rel=0.03)
    assert played.working == pytest.approx(predicted.training + predicted.exchange, rel=0.1)


@pytest.mark.parametrize("spread", ["sticky", "random", "two"])
def test_a_saturated_simulation_is_as_fast_as_its_split_servers(spread: Any) -> None:
    site = Site(2, rtt=0.001, spread=spread)
    workload = planned(64)
    least = 64 * 10 * UNIT.server / 2
    played = simulate(workload, CALIBRATION, site)
    assert least * 0.95 <= played.working <= least * 1.3
    assert played.busy["split servers"] > 0.8


@pytest.mark.parametrize(
    "site",
    [
        Site(1, rtt=0.01),
        Site(8, rtt=0.01, spread="two"),
        Site(8, up=1e6, down=1e6, rtt=0.1),
        Site(3, cores=2, processes=2),
        Site(4, server_link=1e6, rtt=0.01),
        Site(4, store_requests=100.0, rtt=0.01),
    ],
)
@pytest.mark.parametrize("clients", [5, 40, 400])
def test_the_simulation_and_the_formulas_agree(site: Site, clients: int) -> None:
    workload = planned(clients)
    assert 0.7 <= predict(workload, CALIBRATION, site).round / simulate(workload, CALIBRATION, site).round <= 1.4


def test_a_simulation_is_the_same_with_the_same_seed() -> None:
    site, workload = Site(4, rtt=0.01, spread="two"), planned(20)
    assert simulate(workload, CALIBRATION, site, 1) == simulate(workload, CALIBRATION, site, 1)
    assert simulate(workload, CALIBRATION, site, 1) != simulate(workload, CALIBRATION, site, 2)


def test_who_enters_a_place_waits_for_those_before() -> None:
    place = Place()
    assert [place.enter(0.0, 1.0, 0.5), place.enter(0.0, 1.0, 0.0), place.enter(9.0, 1.0, 0.0)] == [1.5, 2.5, 10.0]
    assert (place.queued(0.0), place.worked(10.0)) == (3, 3.5)
    cores = Cores(2)
    places = [Place(cores) for _ in range(3)]
    assert [one.enter(0.0, 1.0, 0.0) for one in places] == [1.0, 1.0, 2.0]  # the third waits for a core


def test_the_page_shows_what_was_measured() -> None:
    shown = between((ROOT / benchmark.PAGE).read_text("utf-8"), benchmark.BEGIN)
    there = benchmark.RESULTS.exists()
    assert shown == (benchmark.table(json.loads(benchmark.RESULTS.read_text("utf-8"))) if there else "")
    with pytest.raises(ValueError, match="has no '<!-- nowhere -->'"):
        write_between(ROOT / benchmark.PAGE, "<!-- nowhere -->", "")


# Calibrations


def test_a_calibration_is_found_again_in_its_file(tmp_path: Path) -> None:
    file = tmp_path / "here.json"
    CALIBRATION.write(file)
    assert Calibration.read(file) == CALIBRATION


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "other"}, "its format is not"),
        ({"unit": {}}, "is no calibration"),
        ({"unit": {**vars(UNIT), "server": -1}}, "server = -1 is no number of seconds"),
        ({"round": {**vars(ROUND), "sync": "short"}}, "sync = 'short'"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    file = tmp_path / "here.json"
    CALIBRATION.write(file)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InvalidSetting, match=says):
        Calibration.read(file)


def test_what_a_unit_and_a_round_take_is_found_in_two_short_runs() -> None:
    """Made up by the same rules: what goes in comes out."""
    unit, round_ = fit(_seen(1, 48), _seen(8, 1))
    expected = {
        "client_compute": 0.001, "client": 0.003, "client_cpu": 0.003, "server_compute": 0.002, "server": 0.004,
        "server_cpu": 0.004, "store": 0.0005, "wait": 0.001,
    }  # fmt: skip
    assert {name: value for name, value in vars(unit).items() if name != "samples"} == pytest.approx(expected)
    assert (round_.coordinator, round_.coordinator_fixed) == pytest.approx((0.004, 0.01))
    assert (round_.reduce, round_.reduce_each) == pytest.approx((0.003, 0.0002))
    assert (round_.aggregate, round_.aggregate_each) == pytest.approx((0.002, 0.0003))
    assert (round_.client, round_.sync) == pytest.approx((0.005, 0.02))


def _seen(clients: int, units: int) -> Seen:
    """Three equal rounds of so many clients with so many units each."""
    total = clients * units
    reduce, aggregate = 0.003 + 0.0002 * total, 0.002 + 0.0003 * clients
    phases = {
        ("train", "client", "front"): 0.001 * total,
        ("train", "client", "waiting"): 0.007 * total,
        ("train", "request", "split-encode"): 0.0005 * total,
        ("train", "request", "split-decode"): 0.0005 * total,
        ("train", "split-server", "compute"): 0.002 * total,
        ("train", "split-server", "store"): 0.0005 * total,
        ("train", "split-server", "decode"): 0.0015 * total,
        ("sync", "split-server", "compute"): reduce,
        ("sync", "fed-server", "compute"): aggregate,
        ("round", "coordinator", "training"): 0.02 + 0.008 * units,
        ("round", "coordinator", "sync"): 0.02 + max(reduce, aggregate),
    }
    rows = [
        Row(number, task, "somebody", role, phase, seconds)
        for number in (1, 2, 3)
        for (task, role, phase), seconds in phases.items()
    ]
    cpu = {
        "client": 3 * (0.003 * total + 0.005 * clients),
        "split-server": 3 * (0.004 * total + reduce),
        "coordinator": 3 * (0.01 + 0.004 * clients),
        "fed-server": 3 * (aggregate + 0.001 * clients),
    }
    return Seen(rows, cpu, 3, total, clients, 32, 32, 0.0002, 1)


# The command


@pytest.fixture
def calibrated(tmp_path: Path) -> str:
    """The file of a calibration for the default specification."""
    from microsfl.capacity.workload import workload
    from microsfl.launch.preflight import resolve

    file = tmp_path / "calibration.json"
    replace(CALIBRATION, about=as_json(workload(resolve(RunSpec())))).write(file)
    return str(file)


def microsfl(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


def test_the_plan_is_printed_and_says_what_holds_it_up(calibrated: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert microsfl("plan", "--calibration", calibrated, "--simulate") == 0
    printed = capsys.readouterr().out
    for wanted in ("a round", "split servers", "files", "the store costs", "simulated", "The bottleneck is the cores"):
        assert wanted in printed


def test_the_plan_as_json_has_every_number(calibrated: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--clients", "1000", "--samples", "320", "--replicas", "auto", "--rtt", "40ms", "--up", "20Mbit/s"]
    assert microsfl("plan", "--calibration", calibrated, *flags, "--prices", "s3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["clients"] == 1000
    assert found["utilisation"]["split servers"] <= command.UTILISATION
    assert found["round_s"] == pytest.approx(sum(found["parts_s"].values()))
    assert found["run_s"] == pytest.approx(20 * found["round_s"])
    assert found["volume_of_a_round"]["files"] == 1000 * 10 + 4 + 1003 + math.ceil(10_000 / 128)
    assert found["dollars"] > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--up", "20"], "has no unit; write it like 20Mbit/s"),
        (["--replicas", "none"], "neither a number above 0 nor auto"),
        (["--replicas", "auto"], "add --apart"),
        (["--round-within", "10s"], "--replicas auto"),
        (["--calibrate", "a.json", "--from-run", "b"], "three ways to one thing"),
        (["--clients", "100000"], "--samples says how many each client has"),
        (["--from-run", "nowhere"], "There is no folder nowhere"),
        (["--server-speed", "0"], "--server-speed"),
    ],
)
def test_wrong_options_are_refused_by_name(
    arguments: list[str], says: str, calibrated: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [] if {"--calibrate", "--from-run"} & set(arguments) else ["--calibration", calibrated]
    assert microsfl("plan", *given, *arguments) == 2
    assert says in capsys.readouterr().err


def test_what_would_make_a_run_other_than_planned_is_said(calibrated: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--clients", "20000", "--samples", "64", "--replicas", "50", "--rtt", "40ms", "--json"]
    assert microsfl("plan", "--calibration", calibrated, *flags, "--set", "servers.graph_cache_mb=1") == 0
    lost, again = json.loads(capsys.readouterr().out)["warnings"]
    assert "Whoever has waited for it for 15 s counts as lost" in lost
    assert "more than servers.graph_cache_mb = 1 keeps" in again


def test_a_calibration_of_another_model_is_refused(calibrated: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert microsfl("plan", "--calibration", calibrated, "--set", "model.name=cnn") == 2
    assert "The calibration is of model = 'mlp'; this run has 'cnn'" in capsys.readouterr().err


def test_a_round_that_no_number_of_split_servers_makes_short_enough_is_said(
    calibrated: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--replicas", "auto", "--round-within", "1ms", "--apart"]
    assert microsfl("plan", "--calibration", calibrated, *flags) == 2
    assert "No number of split servers makes a round that short" in capsys.readouterr().err
