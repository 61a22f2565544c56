"""What the messages of a run can be, by its specification: others are refused before anything is computed or stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..core.cut import Parts
from ..errors import OverQuota, RoundNotFound, TensorMismatch
from ..spec import RunSpec
from ..wire.messages import UnitMessage
from ..zoo.parts import Crossing, crossing

# Of a message besides the tensors' bytes, and of what has another size than is known here.
SLACK_BYTES = 1_000_000
# Samples of a prediction; microsfl's own client sends 512.
PREDICTED_SAMPLES = 4096


@dataclass(frozen=True)
class Plausible:
    """spec: of the run. crossing: what the front makes of a sample; None: not known, or up to the user's own loop."""

    spec: RunSpec
    crossing: Crossing | None

    @classmethod
    def of(cls, spec: RunSpec, parts: Parts) -> Plausible:
        return cls(spec, crossing(spec, parts) if spec.run.managed else None)

    @property
    def largest_bytes(self) -> int | None:
        """Of a message; None: not known."""
        if self.crossing is None:
            return None
        unit = self.spec.strategy.unit
        samples = max(PREDICTED_SAMPLES, 2 * (self.spec.data.batch_size + 1) * (unit if isinstance(unit, int) else 1))
        return SLACK_BYTES + samples * self.crossing.sample_bytes

    def check_unit(self, unit: UnitMessage) -> None:
        """Raises RoundNotFound, TensorMismatch or OverQuota unless the run can have this unit."""
        spec, most = self.spec, self.spec.limits.batches_per_round
        if unit.unit + unit.batches > most:
            raise OverQuota(
                f"Unit {unit.unit} ends with batch {unit.unit + unit.batches}; a client of this run has at most {most} "
                "in a round (limits.batches_per_round)."
            )
        if not spec.run.managed:  # the user's own loop decides
            return
        if unit.round >= spec.run.rounds:
            raise RoundNotFound(f"Run '{spec.run.name}' has {spec.run.rounds} rounds; there is no round {unit.round}.")
        if isinstance(spec.strategy.unit, int) and unit.batches > spec.strategy.unit:
            raise TensorMismatch(f"The unit has {unit.batches} batches; in this run at most {spec.strategy.unit}.")

    def check_activations(self, activations: Mapping[str, Tensor], batches: int | None = None) -> None:
        """Raises TensorMismatch unless names, dtypes and shapes are those that the run's front makes, and so many
        batches can have so many samples."""
        if self.crossing is None:
            return
        wanted = self.crossing.tensors
        if activations.keys() != wanted.keys():
            raise TensorMismatch(f"The activations are {sorted(activations)[:8]}; this run's are {sorted(wanted)}.")
        for name, (dtype, shape) in wanted.items():
            tensor = activations[name]
            if tensor.dtype != dtype or tuple(tensor.shape[1:]) != shape or not tensor.ndim:
                raise TensorMismatch(
                    f"Activation '{name}' is {tensor.dtype} {list(tensor.shape)}; this run's is {dtype} "
                    f"[samples, {', '.join(map(str, shape))}]."
                )
            # A last sample that would be alone is in the batch before it.
            most = PREDICTED_SAMPLES if batches is None else batches * (self.spec.data.batch_size + 1)
            if len(tensor) > most:
                raise TensorMismatch(f"Activation '{name}' has {len(tensor)} samples; the message can have {most}.")
