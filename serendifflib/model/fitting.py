"""How a SerenDiff is fitted: what it diffuses, and one stage of training.

Letters: N items, D channels of a point.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from serendifflib.data.interactions import Interactions
from serendifflib.data.sources import load_dataset
from serendifflib.data.splits import Examples
from serendifflib.diffusion.base import Diffusion, PlacedItems, place
from serendifflib.diffusion.images import ImageDiffusion
from serendifflib.diffusion.points import PointDiffusion
from serendifflib.diffusion.tokens import TokenDiffusion
from serendifflib.diffusion.training import TrainingSettings, train
from serendifflib.diffusion.unet import UNetSettings
from serendifflib.diffusion.validation import Validation, mean_ndcg
from serendifflib.io import content_hash
from serendifflib.model.matching import Matcher
from serendifflib.model.settings import Settings
from serendifflib.portrait.fold import PER_USER, FoldData, whole_fold

if TYPE_CHECKING:
    from serendifflib.model.serendiff import SerenDiff


def fold_of(data: Any, *, progress: bool) -> FoldData:
    """What ``SerenDiff.fit`` takes as a fold; say how much there is."""
    fold = data
    if not isinstance(fold, FoldData):
        if not isinstance(data, Interactions):
            data = load_dataset(data)
        fold = whole_fold(data, progress=progress)
    if progress:
        print(
            f"{fold.interactions.name}: {len(fold.train):,} {fold.kind} "
            "targets to train on",
            file=sys.stderr,
        )
    return fold


def make_diffusion(model: SerenDiff) -> Diffusion:
    """What the settings of a prepared model generate."""
    s = model.settings
    common = {
        "space": model.space,
        "side": s.side,
        "seed": model.seed,
        "device": model.device,
    }
    if s.diffuse == "tokens":
        return TokenDiffusion(
            points=model.points,
            shares=model.memberships,
            width=s.width,
            dropout=s.dropout,
            thinning=s.thinning,
            **common,
        )
    common |= {
        "schedule": model.schedule,
        "sampler": s.sampler,
        "calls": s.calls,
        "samples": s.samples,
        "aggregate": s.aggregate,
    }
    if s.diffuse == "points":
        return PointDiffusion(
            memberships=model.memberships,
            hidden=s.width,
            dropout=s.dropout,
            earliest=s.earliest,
            negatives=s.negatives,
            **common,
        )
    channels = model.points.shape[1]
    return ImageDiffusion(
        points=model.points,
        unet=UNetSettings(
            channels=channels,
            widths=(s.width, 2 * s.width, 4 * s.width),
            condition=s.condition,
            norm=s.norm,
            dropout=s.dropout,
            output_relu=s.output_relu,
        ),
        predict=s.predict,
        loss_kind=s.loss,
        data_scale=channels**0.5 if s.unit_scale else 1.0,
        matcher=Matcher(model.points, s.match),
        **common,
    )


def stages_of(
    settings: Settings, fold: FoldData
) -> list[tuple[str, Examples | None, int]]:
    """Name, examples and steps: next items (if asked), then targets."""
    first = None
    if settings.pretrain_steps and fold.kind == "serendipity":
        first = fold.next_items(PER_USER)
    return [
        ("next-item", first, settings.pretrain_steps),
        (fold.kind, fold.train, settings.steps),
    ]


def train_stage(
    model: SerenDiff,
    network: nn.Module,
    fold: FoldData,
    stage: str,
    examples: Examples,
    steps: int,
    checkpoint: Path | None,
) -> None:
    """Place the stage's users, start, descend; the report is the model's."""
    s, seed = model.settings, model.seed + len(model.reports)
    placed = model.diffusion.examples(fold, examples, seed)
    model.diffusion.start(network.cpu(), placed)
    if not steps:
        return
    cases = _cases(model, fold, stage) if s.patience else None

    def validate(network: nn.Module) -> float:
        return mean_ndcg(model.diffusion.score(network, cases, draws=1))

    report = train(
        network.to(model.device),
        model.diffusion.loss(network, placed),
        len(placed),
        TrainingSettings(
            steps=steps,
            batch_size=s.batch_size,
            learning_rate=s.learning_rate,
            weight_decay=s.weight_decay,
            optimizer=s.optimizer,
            ema=s.ema,
            patience=0 if cases is None else s.patience,
            validate_every=s.validate_every,
        ),
        seed=seed,
        name=model.name,
        stage=stage,
        device=model.device,
        validate=None if cases is None else validate,
        checkpoint=checkpoint,
        keep_checkpoint=True,  # until the whole fit is done
        origin=content_hash(
            s.as_dict(),
            stage,
            model.points.numpy(),
            placed.portraits.items.numpy(),
            placed.portraits.positions.numpy(),
            placed.items.numpy(),
            placed.positions.numpy(),
        ),
        progress=model.progress,
    )
    model.reports.append(report)
    if cases is not None:
        model.diffusion.tune(network, cases)


def _cases(model: SerenDiff, fold: FoldData, stage: str) -> PlacedItems | None:
    """The common validation cases, placed once."""
    cases = Validation.of(
        fold,
        kind=stage,
        n_cases=model.settings.valid_users,
        n_candidates=model.settings.valid_candidates,
    )
    if cases is None:
        return None
    return place(model.space, cases.histories, cases.candidates)
