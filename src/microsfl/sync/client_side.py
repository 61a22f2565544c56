"""Client-side weights on the fed server: one update a client and round, one commit a round."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from ..core.average import average
from ..core.norms import Bound, difference, moved
from ..core.server_optimizer import ServerOptimizer
from ..core.step import Tensors, check_like
from ..core.turns import chosen
from ..errors import ClientNotFound, Forbidden, InputError, OverQuota, StoreCorrupt, TensorMismatch
from ..store.verbs import Store
from ..wire.messages import Update
from ..wire.tensors import decode, encode
from . import keys
from .commits import Chain, Commit, File, LeftOut, Taken
from .convergence import check_next
from .seals import check_open, seal

# What an optimizer keeps of a weight: torch's keep three tensors of its size at most.
OPTIMIZER_TENSORS = 4
OPTIMIZER_SLACK_BYTES = 65_536


@dataclass(frozen=True)
class AverageRule:
    """How the updates of a round become a version.

    average, trim: see `core.average`. optimizer: steps on the average; `trained` names the weights that it steps, the
    others take the average. handed_on: nothing is averaged, the update of who trained last is the version; `seed`
    draws the order in which clients take turns. bound: of the difference to the weights that the round began with.
    """

    average: str = "mean"
    trim: float = 0.1
    optimizer: ServerOptimizer = field(default_factory=ServerOptimizer)
    trained: frozenset[str] = frozenset()
    handed_on: bool = False
    seed: int = 0
    bound: Bound = field(default_factory=Bound)


class ClientSync:
    """The client-side model of one run on a store.

    Args:
        initial: the weights that clients exchange, named <part>.<…>, as the run starts with them.
    """

    def __init__(self, store: Store, run: str, initial: Tensors, rule: AverageRule) -> None:
        self.store = store
        self.run = run
        self.initial = initial
        self.rule = rule
        self.chain = Chain(store, run, keys.CLIENT)
        self._began: tuple[File, Tensors] | None = None  # the weights that the open round began with

    def initialize(self) -> Commit:
        """Create version 0 from the initial weights unless it exists; the version 0 that there is then."""
        self.chain.create(Commit(version=0, weights=self.chain.write(0, "weights", encode(self.initial))))
        return self.chain.get(0)

    def weights(self, version: int | None) -> tuple[int, bytes]:
        """(version, its weights file); the newest when `version` is None.

        Raises:
            VersionNotFound, StoreCorrupt.
        """
        commit = self.chain.head() if version is None else self.chain.get(version)
        return commit.version, self.chain.read(commit.weights)

    def upload(self, update: Update) -> None:
        """Store a client's weights after a round, once: the first upload counts. Durable when this returns.

        Raises:
            TensorMismatch: when the tensors are not those that clients exchange in this run.
            OverNorm: when the update is longer than the run's bound.
            RoundClosed, RoundNotFound: when the round is not open.
        """
        self._check(update)
        self.chain.check_round(update.round)
        update = self._bounded(update)
        self.store.create(keys.update(self.run, update.round, update.client), update.pack(hashed=True))
        check_open(self.store, self.run, update.round)

    def _bounded(self, update: Update) -> Update:
        """The update as it is stored: with its norm, and clipped where the rule says so."""
        began = self._weights_of(self.chain.known())
        change, norm = self.rule.bound.applied(difference(update.weights, began), "update")
        bound = self.rule.bound
        is_clipped = bound.largest and norm > bound.largest
        weights = moved(began, change, update.weights) if is_clipped else update.weights
        return update.model_copy(update={"norm": norm, "weights": weights})

    def _weights_of(self, commit: Commit) -> Tensors:
        if self._began is None or self._began[0] != commit.weights:
            self._began = commit.weights, decode(self.chain.read(commit.weights)).tensors
        return self._began[1]

    def optimizer(self, round_: int, client: str) -> bytes:
        """The client's newest update that was averaged in, up to round `round_`, without its weights.

        Raises:
            ClientNotFound: when it had no part in any of these rounds.
        """
        for commit in self.chain.back(self.chain.head()):
            took_part = client in {one.client for one in commit.contributions}
            if commit.closes and commit.round <= round_ and took_part:
                return self._read(commit.round, client).model_copy(update={"weights": {}}).pack(hashed=True)
        raise ClientNotFound(f"Client '{client}' has no update in run '{self.run}' up to round {round_}.")

    def handed_on(self, round_: int, client: str) -> bytes:
        """The weights of the client's update in exactly this round, in the format of a weights file.

        Raises:
            Forbidden: where the run averages weights, and nobody needs another client's.
            ClientNotFound: when it is not there.
            StoreCorrupt: when it is damaged.
        """
        if not self.rule.handed_on:
            raise Forbidden("Clients of this run do not begin with one another's weights, so nobody gets them.")
        return encode(self._read(round_, client).weights)

    def aggregate(self, round_: int, clients: Collection[str], last: str | None = None) -> Commit:
        """Commit what these clients' updates give by the rule. Doing so again gives the same commit.

        With no client named, the round is sealed and every update that it has counts: so a coordinator goes on that no
        longer knows who took part.

        Args:
            last: where weights are handed on, who trained last; None: whose turn came last among the clients.

        Raises:
            InputError: when `last` is none of the clients.
            ClientNotFound: when a client has no update in the round.
            RoundNotFound: when the round before is still open.
            NotFinite: when the server optimizer diverges.
        """
        while True:
            closing = self.chain.closing(round_)
            if closing is not None:
                return closing
            if last is not None and last not in (clients or [last]):
                raise InputError(f"'{last}' trained last, but is none of the clients {sorted(clients)[:8]}.")
            for client in (*clients, *filter(None, [last])):
                self._check_uploaded(round_, client)
            if not clients and not self._uploaded(round_):
                raise ClientNotFound(f"Round {round_} of run '{self.run}' has no update from any client.")
            seal(self.store, self.run, round_)
            self._commit(round_, sorted(set(clients)) or self._uploaded(round_), last)

    def _commit(self, round_: int, clients: list[str], last: str | None) -> None:
        head = self.chain.head()
        if head.open_round != round_:
            return
        taken: list[Taken] = []

        def updates() -> Iterator[Update]:
            """One at a time: all of them together may not fit into memory."""
            for client in clients:
                update = self._read(round_, client)
                counts = {"batches": 1, "samples": update.samples, "version": head.version}
                taken.append(Taken(client=client, unit=0, norm=update.norm, **counts))
                yield update

        last = last or chosen(self.rule.seed, round_, clients, len(clients), turns=True)[-1]
        weights, state = self._next(head, updates(), last)
        number = head.version + 1
        self.chain.create(
            Commit(
                version=number,
                parent=head.version,
                round=round_,
                closes=True,
                weights=self.chain.write(number, "weights", encode(weights)),
                optimizer=self.chain.write(number, "optimizer", encode(state)) if state else None,
                contributions=tuple(taken),
                left_out=tuple(
                    LeftOut(client=client, unit=0, reason="not asked for in this round")
                    for client in self._uploaded(round_)
                    if client not in clients
                ),
            )
        )

    def _next(self, head: Commit, updates: Iterator[Update], last: str) -> tuple[Tensors, Tensors]:
        """(weights, state of the server optimizer) of the version after `head`; takes all of `updates`."""
        if self.rule.handed_on:
            weights: Tensors = {}
            for one in updates:
                weights = one.weights if one.client == last else weights
            return weights, {}
        mean = average(self.rule.average, ((one.weights, one.samples) for one in updates), self.rule.trim)
        if self.rule.optimizer.name == "none":
            return mean, {}
        before = decode(self.chain.read(head.weights)).tensors
        state = {} if head.optimizer is None else decode(self.chain.read(head.optimizer)).tensors
        weights, state = self.rule.optimizer.step(before, mean, state, self.rule.trained)
        tensors = (*weights.items(), *state.items())
        check_next("client-side", tensors, head.version + 1, "strategy.server_optimizer.lr")
        return weights, state

    def _uploaded(self, round_: int) -> list[str]:
        """Clients that have an update in the round, sorted."""
        paths = self.store.list(keys.updates(self.run, round_))
        return sorted(path.rsplit("/", 1)[1].removesuffix(".safetensors") for path in paths)

    def _check_uploaded(self, round_: int, client: str) -> None:
        if not self.store.exists(keys.update(self.run, round_, client)):
            self.chain.check_round(round_)  # it may have been committed, and cleaned up, in the meantime
            raise ClientNotFound(f"Client '{client}' has no update in round {round_} of run '{self.run}'.")

    def _read(self, round_: int, client: str) -> Update:
        path = keys.update(self.run, round_, client)
        try:
            update = Update.unpack(self.store.get(path), hashed=True)
        except FileNotFoundError:
            raise ClientNotFound(f"'{path}' is not there, or not any more.") from None
        except InputError as error:
            raise StoreCorrupt(f"'{path}' cannot be read: {error}") from None
        if (update.run, update.round, update.client) != (self.run, round_, client):
            raise StoreCorrupt(f"'{path}' is the update of client '{update.client}' in round {update.round}.")
        return update

    def _check(self, update: Update) -> None:
        weights = update.weights
        if weights.keys() != self.initial.keys():
            odd = sorted(weights.keys() ^ self.initial.keys())
            raise TensorMismatch(f"The update's tensors are not those of this run; they differ in {odd[:8]}.")
        for name, tensor in weights.items():
            check_like(tensor, self.initial[name], f"weight '{name}'")
        size = sum(tensor.nbytes for tensor in update.optimizer.values())
        most = OPTIMIZER_SLACK_BYTES + OPTIMIZER_TENSORS * sum(tensor.nbytes for tensor in weights.values())
        if size > most or len(update.scalars) > OPTIMIZER_SLACK_BYTES // 8:
            raise OverQuota(f"The optimizers' state has {size} bytes; beside these weights it has at most {most}.")
