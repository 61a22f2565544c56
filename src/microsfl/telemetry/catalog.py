"""Every metric that a process of microsfl has, with what it means. `docs/reference/metrics.md` is written from this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

COORDINATOR, SPLIT_SERVER, FED_SERVER, CLIENT = "coordinator", "split-server", "fed-server", "client"
REPLICAS = (SPLIT_SERVER, FED_SERVER)
SERVICES = (COORDINATOR, *REPLICAS)

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Metric:
    """A metric of the roles `of`; the names of counters end in `_total`."""

    name: str
    kind: Kind
    help: str
    of: tuple[str, ...]
    labels: tuple[str, ...] = ()


METRICS: tuple[Metric, ...] = (
    Metric("microsfl_build_info", "gauge", "Always 1; the labels say what runs.", (*SERVICES, CLIENT),
           ("role", "version", "python")),
    # Requests
    Metric("microsfl_requests_total", "counter", "Requests that were answered.", SERVICES,
           ("method", "path", "status")),
    Metric("microsfl_request_seconds", "histogram", "From the arrival of a request to the beginning of its answer; "
           "long polls include what they wait.", SERVICES, ("method", "path")),
    Metric("microsfl_open_requests", "gauge", "Requests under way: at the coordinator long polls and event streams "
           "most of all.", SERVICES, ("method", "path")),
    # How many replicas
    Metric("microsfl_replicas_wanted", "gauge", "Split servers that there should be for what waits at them; 0 when no "
           "run needs any. The same as `/api/scale` without bounds.", (COORDINATOR,)),
    Metric("microsfl_replicas_load", "gauge", "Requests that wait at all split servers together or are computed there, "
           "on average over the last seconds.", (COORDINATOR,)),
    # What computes
    Metric("microsfl_computed_requests_total", "counter", "Requests that went through the compute thread.", REPLICAS),
    Metric("microsfl_phase_seconds_total", "counter", "Where computed requests were: queue, decode, compute, store, "
           "encode.", REPLICAS, ("phase",)),
    Metric("microsfl_units_total", "counter", "Forwards of units, repeated ones included.", (SPLIT_SERVER,)),
    Metric("microsfl_graph_cache_hits_total", "counter", "Backwards that found the graph of their forward.",
           (SPLIT_SERVER,)),
    Metric("microsfl_graph_cache_misses_total", "counter", "Backwards that did not.", (SPLIT_SERVER,)),
    Metric("microsfl_recomputations_total", "counter", "Forwards that were computed again for a backward.",
           (SPLIT_SERVER,)),
    Metric("microsfl_cache_bytes", "gauge", "Bytes in memory: graphs, versions of the body, and activations that wait "
           "to be stored.", (SPLIT_SERVER,), ("cache",)),
    Metric("microsfl_cache_limit_bytes", "gauge", "The bound of each.", (SPLIT_SERVER,), ("cache",)),
    # What lasts
    Metric("microsfl_contributions_total", "counter", "Contributions that this server was the first to write.",
           (SPLIT_SERVER,)),
    Metric("microsfl_updates_total", "counter", "Updates of clients that were taken, repeated ones included.",
           (FED_SERVER,)),
    Metric("microsfl_downloads_total", "counter", "Weights files that were handed out.", (FED_SERVER,)),
    Metric("microsfl_commits_total", "counter", "Commits that this server created.", REPLICAS),
    Metric("microsfl_reduce_seconds", "histogram", "To make a commit: reading and adding up what waits, the "
           "optimizer's step, writing.", REPLICAS),
    Metric("microsfl_store_operations_total", "counter", "Operations on the store, failed ones included.", REPLICAS,
           ("area", "verb")),
    Metric("microsfl_store_seconds_total", "counter", "Seconds in these, pauses before another try included.", REPLICAS,
           ("area", "verb")),
    Metric("microsfl_store_retries_total", "counter", "Tries of an operation after its first one.", REPLICAS,
           ("area", "verb")),
    Metric("microsfl_store_errors_total", "counter", "Operations that failed for good. To miss a file is no failure.",
           REPLICAS, ("area", "verb")),
    # Participants and runs
    Metric("microsfl_participants", "gauge", "Everybody who ever registered, by whether its lease holds.",
           (COORDINATOR,), ("role", "alive")),
    Metric("microsfl_runs", "gauge", "Runs in the database.", (COORDINATOR,), ("state",)),
    Metric("microsfl_run_running", "gauge", "1 while the run is running.", (COORDINATOR,), ("run",)),
    Metric("microsfl_run_round", "gauge", "The current or last round, from 0, where the coordinator drives the run.",
           (COORDINATOR,), ("run",)),
    Metric("microsfl_run_rounds", "gauge", "Rounds that the run is to have.", (COORDINATOR,), ("run",)),
    Metric("microsfl_run_accuracy_ratio", "gauge", "Of the last round that was evaluated, from 0 to 1, weighted by "
           "test samples.", (COORDINATOR,), ("run",)),
    Metric("microsfl_run_loss", "gauge", "Test loss of the last round that was evaluated.", (COORDINATOR,), ("run",)),
    Metric("microsfl_run_away_clients", "gauge", "Clients that were left out or fell silent and have not come back.",
           (COORDINATOR,), ("run",)),
    Metric("microsfl_run_overdue", "gauge", "1 while a phase is past its deadline and the run waits for its quorum.",
           (COORDINATOR,), ("run",)),
    # What the coordinator depends on
    Metric("microsfl_data_plane_seconds", "histogram", "Calls of split servers and fed server, all tries together.",
           (COORDINATOR,), ("call",)),
    Metric("microsfl_data_plane_retries_total", "counter", "Tries of such a call after its first one.", (COORDINATOR,),
           ("call",)),
    Metric("microsfl_database_transactions_total", "counter", "Transactions that were begun.", (COORDINATOR,)),
    Metric("microsfl_database_errors_total", "counter", "Transactions that the database refused or did not answer.",
           (COORDINATOR,)),
    Metric("microsfl_database_retries_total", "counter", "Writes of a run's progress that were tried again.",
           (COORDINATOR,)),
    # A client process
    Metric("microsfl_client_hosted", "gauge", "Clients that the process hosts.", (CLIENT,)),
    Metric("microsfl_client_tasks_in_hand", "gauge", "Tasks that its clients are at.", (CLIENT,)),
    Metric("microsfl_client_tasks_total", "counter", "Tasks by what became of them: done, failed, abandoned (the "
           "servers wanted it no longer), broken (a bug).", (CLIENT,), ("kind", "outcome")),
    Metric("microsfl_client_phase_seconds_total", "counter", "Where the time of tasks went that are done; the phases "
           "are those of the profile.", (CLIENT,), ("kind", "phase")),
    Metric("microsfl_client_samples_total", "counter", "Training samples, each as often as it was trained on.",
           (CLIENT,)),
    Metric("microsfl_client_batches_total", "counter", "Batches that were trained.", (CLIENT,)),
    Metric("microsfl_client_sent_bytes_total", "counter", "Bodies of requests to split servers and fed server, of "
           "tasks that are done.", (CLIENT,)),
    Metric("microsfl_client_received_bytes_total", "counter", "Bodies of their answers.", (CLIENT,)),
    Metric("microsfl_client_requests_total", "counter", "Requests that were answered well.", (CLIENT,), ("to",)),
    Metric("microsfl_client_request_seconds", "histogram", "Of each, tries that failed included; the coordinator's "
           "long polls wait.", (CLIENT,), ("to",)),
    Metric("microsfl_client_failed_tries_total", "counter", "Tries without a good answer, after which another server "
           "or the same one was asked.", (CLIENT,), ("to",)),
    Metric("microsfl_client_failovers_total", "counter", "Requests that another server answered than the first one "
           "that was asked.", (CLIENT,), ("to",)),
)  # fmt: skip

BY_NAME = {metric.name: metric for metric in METRICS}


def metrics_of(role: str) -> dict[str, Metric]:
    """What processes of a role have, by name."""
    return {metric.name: metric for metric in METRICS if role in metric.of}
