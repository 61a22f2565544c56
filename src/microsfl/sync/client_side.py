"""Client-side weights on the fed server: one update a client and round, one commit a round."""

from __future__ import annotations

from collections.abc import Iterator

from ..core.reduce import fedavg
from ..core.step import Tensors, check_like
from ..errors import ClientNotFound, InputError, StoreCorrupt, TensorMismatch
from ..store.verbs import Store
from ..wire.messages import Update
from ..wire.tensors import encode
from . import keys
from .commits import Chain, Commit, LeftOut, Taken
from .seals import check_open, seal


class ClientSync:
    """The client-side model of one run on a store.

    Args:
        initial: the weights that clients exchange, named front.<…> and tail.<…>, as the run starts with them.
    """

    def __init__(self, store: Store, run: str, initial: Tensors) -> None:
        self.store = store
        self.run = run
        self.initial = initial
        self.chain = Chain(store, run, keys.CLIENT)

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
            RoundClosed, RoundNotFound: when the round is not open.
        """
        self._check(update.weights)
        self.chain.check_round(update.round)
        self.store.create(keys.update(self.run, update.round, update.client), update.pack(hashed=True))
        check_open(self.store, self.run, update.round)

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

    def aggregate(self, round_: int, clients: list[str]) -> Commit:
        """Commit the average of these clients' updates, weighted by samples. Doing so again gives the same commit.

        With no client named, the round is sealed and every update that it has counts: so a coordinator goes on that no
        longer knows who took part.

        Raises:
            ClientNotFound: when a client has no update in the round.
            RoundNotFound: when the round before is still open.
        """
        while True:
            closing = self.chain.closing(round_)
            if closing is not None:
                return closing
            for client in clients:
                self._check_uploaded(round_, client)
            if not clients and not self._uploaded(round_):
                raise ClientNotFound(f"Round {round_} of run '{self.run}' has no update from any client.")
            seal(self.store, self.run, round_)
            self._commit(round_, sorted(clients) or self._uploaded(round_))

    def _commit(self, round_: int, clients: list[str]) -> None:
        head = self.chain.head()
        if head.open_round != round_:
            return
        taken: list[Taken] = []

        def updates() -> Iterator[tuple[Tensors, int]]:
            """One at a time: all of them together may not fit into memory."""
            for client in clients:
                update = self._read(round_, client)
                taken.append(Taken(client=client, unit=0, batches=1, samples=update.samples, version=head.version))
                yield update.weights, update.samples

        weights = self.chain.write(head.version + 1, "weights", encode(fedavg(updates())))
        self.chain.create(
            Commit(
                version=head.version + 1,
                parent=head.version,
                round=round_,
                closes=True,
                weights=weights,
                contributions=tuple(taken),
                left_out=tuple(
                    LeftOut(client=client, unit=0, reason="not asked for in this round")
                    for client in self._uploaded(round_)
                    if client not in clients
                ),
            )
        )

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
            raise ClientNotFound(f"'{path}' is not there any more.") from None
        except InputError as error:
            raise StoreCorrupt(f"'{path}' cannot be read: {error}") from None
        if (update.run, update.round, update.client) != (self.run, round_, client):
            raise StoreCorrupt(f"'{path}' is the update of client '{update.client}' in round {update.round}.")
        return update

    def _check(self, weights: Tensors) -> None:
        if weights.keys() != self.initial.keys():
            odd = sorted(weights.keys() ^ self.initial.keys())
            raise TensorMismatch(f"The update's tensors are not those of this run; they differ in {odd[:8]}.")
        for name, tensor in weights.items():
            check_like(tensor, self.initial[name], f"weight '{name}'")
