"""What sets the strategies apart: everything else about them is settings of the same machinery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Traits:
    """A strategy by what becomes of the parts of the model.

    body: "shared", one chain of versions; "copies", one a client and round, averaged at its end; "none", the whole
    model is on the client.
    client_side: "averaged" each round; "handed-on" from client to client, the last one's counts; "own", never leaves.
    turns: clients train one after another, in an order that the seed draws for each round.
    pooled: one client holds the data of all.
    auxiliary: the front trains on the loss of a small head of its own.
    """

    body: Literal["shared", "copies", "none"]
    client_side: Literal["averaged", "handed-on", "own"] = "averaged"
    turns: bool = False
    pooled: bool = False
    auxiliary: bool = False

    @property
    def split(self) -> bool:
        """Whether the model is cut, so that there is work for split servers."""
        return self.body != "none"

    @property
    def federated(self) -> bool:
        """Whether client-side weights leave the client, so that there is work for the fed server."""
        return self.client_side != "own"


TRAITS: dict[str, Traits] = {
    "filesync": Traits("shared"),
    "sflv1": Traits("copies"),
    "sflv2": Traits("shared", turns=True),
    "sl": Traits("shared", "handed-on", turns=True),
    "cse-fsl": Traits("shared", auxiliary=True),
    "fedavg": Traits("none"),
    "local": Traits("none", "own"),
    "centralized": Traits("none", pooled=True),
}
