"""What holds a run up, and what would change that."""

from __future__ import annotations

from .calibration import Calibration
from .demands import beats_busy
from .prediction import CLIENTS, COMMITS, COORDINATOR, CORES, FED, LINKS, SPLIT, STORE, Prediction, busiest
from .quantities import shown_seconds
from .site import Site
from .workload import Workload

FULL = 0.8  # from this utilisation on, it is a station that holds the clients up and not their own work

REMOVES = {
    CORES: "more cores, or machines of their own for clients and split servers (--apart)",
    CLIENTS: "client processes on more machines, so that fewer clients take turns",
    SPLIT: "more split servers (--replicas), faster ones (--server-speed)",
    LINKS: "more split servers, a faster link of theirs, or smaller tensors (wire.activations, wire.gradients)",
    STORE: "a store that takes more requests or bytes, or larger units (strategy.unit)",
    COMMITS: "fewer commits in a round (strategy.sync)",
    COORDINATOR: "a faster core for the coordinator: it is one process, which clients ask in every round and every 3 s",
    FED: "a faster fed server or link: it is one process. Fewer participants in a round (run.participants) ask less",
}


def bottleneck(found: Prediction, workload: Workload, calibration: Calibration, site: Site) -> tuple[str, str]:
    """(what the bottleneck is, what removes it)."""
    if workload.spec.strategy.traits.turns:
        return "that one client trains at a time", "a strategy in which clients train in parallel (strategy.name)"
    if beats_busy(workload, calibration, site) >= 1:
        return f"the {COORDINATOR}: clients' signs of life alone would keep it busy", REMOVES[COORDINATOR]
    parts = {
        "training": found.training, "exchange": found.exchange, "sync": found.sync, "evaluation": found.evaluation,
    }  # fmt: skip
    longest = max(parts, key=lambda one: parts[one])
    if longest == "training":
        return _of_training(found)
    if longest == "sync":
        return "the sync", "several split servers share a sum of 256 contributions and more; larger units make fewer"
    name, share = busiest(found, (COORDINATOR, FED))
    if site.shared:
        return f"the {CORES}, which hand weights out and in, give tasks and evaluate", REMOVES[CORES]
    if share >= FULL / 2:
        return f"the {name}", REMOVES[name]
    return "the clients' own link", "a faster link, or fewer client-side weights (model.cut, strategy.front_update)"


def _of_training(found: Prediction) -> tuple[str, str]:
    name, share = busiest(found, (CORES, CLIENTS, SPLIT, LINKS, STORE, COMMITS))
    if share >= FULL:
        return f"the {name}, busy for {share:.0%} of the training", REMOVES[name]
    asked = found.demands
    own = {
        "the clients' computing": asked.client,
        "the clients' link": asked.link,
        "the split servers' computing": asked.server,
    }
    name = max(own, key=lambda one: own[one])
    removes = {
        "the clients' computing": "faster clients, or an earlier cut (model.cut)",
        "the clients' link": "a faster or shorter link, larger units (strategy.unit, strategy.front_update), smaller "
        "tensors (wire.activations, wire.gradients), a cut with fewer activations (model.cut)",
        "the split servers' computing": "faster split servers (--server-speed): nobody waits in a queue, so that more "
        "of them change little",
    }
    return f"{name}: {shown_seconds(own[name])} of the {shown_seconds(found.unit)} of a unit", removes[name]
