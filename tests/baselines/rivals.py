"""The trained rivals as tests fit them: small, on the toy world."""

import torch

from serendifflib.baselines.bert4rec import BERT4Rec
from serendifflib.baselines.desr import DESR
from serendifflib.baselines.diffrec import DiffRec
from serendifflib.baselines.dreamrec import DreamRec
from serendifflib.baselines.purs import PURS
from serendifflib.baselines.sasrec import SASRec
from serendifflib.baselines.serenenhance import SerenEnhance
from serendifflib.baselines.snpr import SNPR
from serendifflib.baselines.trainer import Budget


def budget(pretrain, steps, every, patience):
    return Budget(
        pretrain_steps=pretrain,
        max_steps=steps,
        batch_size=32,
        eval_every=every,
        patience=patience,
    )


SHORT = Budget(
    pretrain_steps=3, max_steps=3, batch_size=16, eval_every=9, patience=1
)
LONG = {  # enough to learn the toy world
    SASRec: budget(60, 120, 20, 3),
    BERT4Rec: budget(60, 200, 40, 3),
    DreamRec: budget(40, 120, 40, 4),
    DiffRec: budget(60, 240, 40, 4),
    SNPR: budget(40, 60, 20, 4),
    PURS: budget(100, 150, 50, 4),
    DESR: budget(50, 150, 50, 4),
    SerenEnhance: budget(0, 150, 30, 3),
}
OPTIONS = {DiffRec: {"hidden": 200}, DESR: {"lr": 1e-2, "components": 8}}


def fit(kind, fold, budget=None, seed=0, **options):
    """A rival after its long budget, or another one."""
    options = {"width": 32, "lr": 3e-3} | OPTIONS.get(kind, {}) | options
    model = kind(budget=budget or LONG[kind], **options)
    return model.fit(fold, generator=torch.Generator().manual_seed(seed))
