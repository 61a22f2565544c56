"""What authentication and TLS cost: samples a second with them ÷ without.

The same training by three federations in turn: one that takes everybody, one with credentials and tokens, as
`microsfl run` has it, and one with certificates besides. The MLP with a trainable front sends two small requests a
batch, so that the check of a token weighs most there; a batch of ResNet-18 moves 17 MB each way, which is what TLS has
to encrypt. A repetition is a round (see `federated.round_speeds`) ÷ the median of the rounds of the federation that
takes everybody, before and after.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import microsfl
from microsfl.config import ProcessSettings
from microsfl.launch.admission import LocalFederation
from microsfl.launch.federation import Federation
from microsfl.trust.authority import Authority, Written
from microsfl.trust.tls import Outbound, using

from . import resnet, throughput
from .federated import round_speeds
from .figures import Figure
from .places import new_folder

TARGETS = {"MLP": 0.90, "ResNet-18": 0.98}
ROUNDS, QUICK_ROUNDS = 4, 3  # the first one does not count
HERE = "127.0.0.1"

Settings = TypeVar("Settings", bound=ProcessSettings)


class Open(Federation):
    """Takes everybody."""

    def _coordinator(self, federation: Path) -> Any:
        return super()._coordinator(federation).model_copy(update={"allow_anybody": True, "federation": None})

    def _split_server(self, name: str, local: LocalFederation) -> Any:
        return super()._split_server(name, local).model_copy(update={"allow_anybody": True})

    def _fed_server(self, local: LocalFederation) -> Any:
        return super()._fed_server(local).model_copy(update={"allow_anybody": True})


class Encrypted(Federation):
    """Speaks HTTPS."""

    authority: Path
    pair: Written

    def _coordinator(self, federation: Path) -> Any:
        return self._served(super()._coordinator(federation))

    def _split_server(self, name: str, local: LocalFederation) -> Any:
        return self._served(super()._split_server(name, local))

    def _fed_server(self, local: LocalFederation) -> Any:
        return self._served(super()._fed_server(local))

    def _client(self, ids: tuple[str, ...], credential: Path) -> Any:
        return super()._client(ids, credential).model_copy(update={"tls_ca": str(self.authority)})

    def _served(self, settings: Settings) -> Settings:
        files = {"tls_cert": str(self.pair.cert), "tls_key": str(self.pair.key), "tls_ca": str(self.authority)}
        return settings.model_copy(update=files)


def measure(quick: bool) -> Iterator[Figure]:
    specs = {"MLP": throughput.specification({}, quick=False), "ResNet-18": resnet.specification(quick=True)}
    rounds = QUICK_ROUNDS if quick else ROUNDS
    with new_folder() as pki:
        Encrypted.authority, Encrypted.pair = pki / "ca.pem", Authority.in_folder(pki).server([HERE])
        with using(Outbound(str(Encrypted.authority))):
            for name, spec in specs.items():
                run = spec.run.model_copy(update={"rounds": rounds})
                yield from ratios(name, spec.model_copy(update={"run": run}))


def ratios(name: str, spec: microsfl.RunSpec) -> Iterator[Figure]:
    speeds: dict[type[Federation], list[float]] = {Open: [], Federation: [], Encrypted: []}
    # Next to a batch of more than a second the check of two tokens, some microseconds, cannot be measured.
    kinds: tuple[type[Federation], ...] = (Open, Federation, Encrypted, Encrypted, Federation, Open)
    if name == "ResNet-18":
        kinds = (Open, Encrypted, Open)
    for kind in kinds:
        speeds[kind] += round_speeds(spec, kind)
    without = median(speeds[Open])
    for kind, what in ((Federation, "authentication"), (Encrypted, "authentication and TLS")):
        if kind not in kinds:
            continue
        yield Figure(
            f"{name}: samples/s with {what} ÷ without",
            tuple(speed / without for speed in speeds[kind]),
            TARGETS[name],
            at_least=True,
            note=f"{median(speeds[kind]):,.0f} of {without:,.0f} samples/s, {min(speeds[Open]):,.0f} to "
            f"{max(speeds[Open]):,.0f}",
        )
