"""What training took: a report per stage, and one per model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class StageReport:
    """What one call of :func:`train` did.

    Attributes:
        stage: what the targets were, e.g. ``serendipity``.
        examples: training examples M.
        parameters: numbers that were trained.
        losses: of every step.
        validations: (step, score) pairs, higher is better, from step 0 on.
        best_step: step of the weights that were kept.
        stopped: ``patience`` (the score rose no more) or ``cap`` (all steps
            were taken).
        seconds: wall time, validation and resumed parts included.
    """

    stage: str = ""
    examples: int = 0
    parameters: int = 0
    losses: list[float] = field(default_factory=list)
    validations: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    stopped: str = "cap"
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        """Optimiser steps taken."""
        return len(self.losses)

    @property
    def best_value(self) -> float:
        """Best validation score, NaN without validation."""
        scores = [score for _, score in self.validations]
        return max(scores, default=float("nan"))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> StageReport:
        """The report that ``asdict`` turned into plain values."""
        report = cls(**values)
        report.validations = [(s, v) for s, v in report.validations]
        return report


@dataclass(frozen=True)
class TrainingReport:
    """What fitting a model took: trained numbers, stages, wall seconds."""

    parameters: int
    stages: tuple[StageReport, ...]
    seconds: float

    @property
    def steps(self) -> int:
        """Optimiser steps over all stages."""
        return sum(stage.steps for stage in self.stages)
