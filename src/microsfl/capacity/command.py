"""What `microsfl plan` does."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import click
from rich.console import Console

from ..errors import ImpossiblePartition, InvalidSetting, OperationError
from ..launch.forks import Forks
from ..launch.preflight import resolve
from ..spec import RunSpec
from .calibration import Calibration
from .measure import from_run, here, measure
from .plan import Plan, make
from .report import tables
from .site import S3, Prices, Site
from .workload import Workload, as_json, workload

UTILISATION = 0.7  # of split servers, where --replicas auto is all that is said


@dataclass(frozen=True)
class Asked:
    """The options of the command, None where one was not given; see `options`."""

    clients: int | None = None
    samples: int | None = None
    replicas: int | str | None = None
    apart: bool = False
    up: float | None = None
    down: float | None = None
    rtt: float | None = None
    server_link: float | None = None
    client_speed: float | None = None
    server_speed: float | None = None
    store_latency: float | None = None
    store_requests: float | None = None
    store_link: float | None = None
    spread: str | None = None
    round_within: float | None = None
    utilisation: float | None = None
    prices: str | None = None
    price_put: float | None = None
    price_get: float | None = None
    price_gb_month: float | None = None
    price_gb_out: float | None = None
    calibration: Path | None = None
    calibrate: Path | None = None
    from_run: Path | None = None
    simulate: bool = False
    as_json: bool = False

    @property
    def elsewhere(self) -> bool:
        """Whether machines of their own are meant."""
        speeds = (
            self.up, self.down, self.rtt, self.server_link, self.client_speed, self.server_speed, self.store_latency,
            self.store_requests, self.store_link,
        )  # fmt: skip
        return self.apart or any(one is not None for one in speeds)


def plan(spec: RunSpec, asked: Asked, forks: Forks | None = None) -> None:
    """Print the plan of a run.

    Raises:
        InputError: what is wrong with the specification or the options.
        RunFailed: when a short run to measure with fails.
        OperationError: when --simulate has no simpy.
    """
    _check(asked)
    workload_ = _workload(spec, asked)
    site = _site(workload_.spec, asked)
    calibration = _calibration(workload_, asked, forks)
    if asked.calibrate is not None:
        calibration.write(asked.calibrate)
        click.echo(f"The calibration is in {asked.calibrate}.", err=True)
    target = asked.utilisation if asked.utilisation or asked.round_within else UTILISATION
    made = make(workload_, calibration, site, asked.round_within, target, auto=asked.replicas == "auto")
    simulated = _simulated(made) if asked.simulate else None
    if asked.as_json:
        click.echo(json.dumps(made.to_json(simulated), indent=2, allow_nan=False))
        return
    console = Console(soft_wrap=False)
    for number, table in enumerate(tables(made, simulated)):
        console.print(*[""] * bool(number), table, sep="\n")


def _check(asked: Asked) -> None:
    sources = [name for name in ("calibration", "calibrate", "from_run") if getattr(asked, name) is not None]
    if len(sources) > 1:
        raise InvalidSetting("--calibration, --calibrate and --from-run are three ways to one thing; give one of them.")
    if asked.replicas != "auto" and (asked.round_within is not None or asked.utilisation is not None):
        raise InvalidSetting("--round-within and --utilisation are what --replicas auto keeps to: give that, too.")
    if asked.replicas == "auto" and not asked.elsewhere:
        raise InvalidSetting(
            "--replicas auto is for split servers on machines of their own, as one machine has no more cores with more "
            "of them: add --apart, or a speed as --up."
        )
    if asked.simulate and importlib.util.find_spec("simpy") is None:
        raise OperationError("`microsfl plan --simulate` needs simpy: pip install 'microsfl[plan]'.")


def _workload(spec: RunSpec, asked: Asked) -> Workload:
    if asked.clients is not None:
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"clients": asked.clients})})
    try:
        return workload(resolve(RunSpec.parse(spec.model_dump(mode="json"))), asked.samples)
    except ImpossiblePartition as error:
        if asked.clients is None:
            raise
        raise InvalidSetting(f"{error} --samples says how many each client has, whatever the data set has.") from None


def _site(spec: RunSpec, asked: Asked) -> Site:
    base = here(spec)
    prices = _prices(spec, asked)
    replicas = asked.replicas if isinstance(asked.replicas, int) else base.replicas
    spread = asked.spread or base.spread
    if not asked.elsewhere:
        return replace(base, replicas=replicas, spread=spread, prices=prices)  # type: ignore[arg-type]
    return Site(
        replicas=replicas,
        client_speed=asked.client_speed or 1.0,
        server_speed=asked.server_speed or 1.0,
        up=asked.up or inf,
        down=asked.down or inf,
        rtt=asked.rtt or 0.0,
        server_link=asked.server_link or inf,
        store_latency=asked.store_latency or 0.0,
        store_requests=asked.store_requests or inf,
        store_link=asked.store_link or inf,
        spread=spread,  # type: ignore[arg-type]
        prices=prices,
    )


def _prices(spec: RunSpec, asked: Asked) -> Prices:
    on_s3 = asked.prices == "s3" or (asked.prices is None and spec.store.body.startswith("s3://"))
    base = S3 if on_s3 else Prices()
    given = {
        "put": None if asked.price_put is None else asked.price_put / 1000,
        "get": None if asked.price_get is None else asked.price_get / 1000,
        "gb_month": asked.price_gb_month,
        "gb_out": asked.price_gb_out,
    }
    return replace(base, **{name: value for name, value in given.items() if value is not None})


def _calibration(planned: Workload, asked: Asked, forks: Forks | None) -> Calibration:
    if asked.from_run is not None:
        found = from_run(asked.from_run)
    elif asked.calibration is not None:
        found = Calibration.read(asked.calibration)
    else:
        return measure(planned, forks)
    found.check_for(as_json(planned))
    return found


def _simulated(made: Plan) -> dict[str, float]:
    from .simulation import simulate

    return simulate(made.workload, made.calibration, made.site).to_json()
