"""Settings of SerenDiff: every open choice of the paper has a name here.

The presets, from the letter to the best that we know:

``paper``
    the literal reading;
``corrected``
    the smallest repair that is sound;
``painter``
    ``tuned`` without its linear shortcut: the image has to be painted;
``tuned``
    portraits, all that helps;
``points``
    the point itself is diffused, without an image;
``tokens``
    the point is said in tokens, which are masked and found again.

The page *Deviations* explains each switch.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import asdict, dataclass, fields, replace

from serendifflib.diffusion.points import AGGREGATES
from serendifflib.diffusion.sampling import SAMPLERS
from serendifflib.diffusion.schedule import PREDICT
from serendifflib.errors import ConfigError, check_choice
from serendifflib.model.matching import MATCHES
from serendifflib.profiles import Profile

LOOKS = 40  # measurements on the validation users in a full training
KINDS = ("portraits", "points", "tokens")


@dataclass(frozen=True)
class Settings:
    """All settings of one SerenDiff model.

    Attributes:
        preset: name of the preset that the values come from.
        diffuse: what is generated: ``portraits``, ``points`` or ``tokens``.
        side: L, cells per axis (paper: 10).
        bins: ``interactions`` or ``catalogue`` (portrait.PortraitSpace).
        isotropy: ``none``, ``center`` or ``whiten`` (items.Isotropy).
        prototypes: memberships in so many prototypes of the catalogue stand
            beside each item vector (items.memberships); 0 is none.
        weights: p(i_h | T): ``uniform``, ``recency`` or ``similarity``.
        mu: Dirichlet mass of the popularity background in expectedness.
        schedule, timesteps, rescale_betas: diffusion.schedule.DDPMSchedule.
        predict: ``noise``, ``x0`` or ``v``.
        condition, norm, output_relu, dropout, width: diffusion.unet; of
            points, ``width`` is that of the correction.
        thinning: share of a history that training on tokens hides.
        earliest, negatives: diffusion.points.
        unit_scale: multiply item vectors by sqrt(D) before diffusion.
        loss: ``uniform`` or ``balanced`` (diffusion.images).
        optimizer, learning_rate, weight_decay, ema, batch_size, patience,
            validate_every: diffusion.training.
        steps: at most so many on the fold's own targets; 0 leaves the
            network as it starts, which is a regression (tuned, points) or
            untrained (the others).
        pretrain_steps: steps on next-item targets before the labels.
        valid_users, valid_candidates: at most so many validation cases (0
            is all) among so many candidates.
        sampler, calls, samples: how to generate; the scores of ``samples``
            generated portraits are averaged.
        aggregate: how points or portraits are used: ``mean`` or ``draws``
            of several, or ``error``, of points that are candidates
            (diffusion.points, diffusion.images).
        match: ``own-cell``, ``zone`` or ``field`` (matching).
    """

    preset: str = "paper"
    diffuse: str = "portraits"
    side: int = 10
    bins: str = "interactions"
    isotropy: str = "none"
    prototypes: int = 0
    weights: str = "uniform"
    mu: float = 1.0
    schedule: str = "linear"
    timesteps: int = 1000
    rescale_betas: bool = False
    predict: str = "noise"
    condition: str = "concat"
    norm: str = "batch"
    output_relu: bool = True
    dropout: float = 0.2
    width: int = 384
    thinning: float = 0.0
    earliest: float = 0.0
    negatives: int = 200
    unit_scale: bool = False
    loss: str = "uniform"
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    ema: bool = False
    batch_size: int = 64
    steps: int = 1000
    patience: int = 0
    validate_every: int = 100
    pretrain_steps: int = 0
    valid_users: int = 0
    valid_candidates: int = 1_000
    sampler: str = "ancestral"
    calls: int = 1000
    samples: int = 1
    aggregate: str = "mean"
    match: str = "zone"

    def __post_init__(self):
        for field in fields(self):
            _check_kind(field.name, getattr(self, field.name), field.default)
        for name, value, known in (
            ("diffuse", self.diffuse, KINDS),
            ("predict", self.predict, PREDICT),
            ("sampler", self.sampler, SAMPLERS),
            ("match", self.match, MATCHES),
            ("aggregate", self.aggregate, AGGREGATES),
        ):
            check_choice(name, value, known)
        if self.aggregate == "error" and self.diffuse != "points":
            raise ConfigError(
                "aggregate 'error' needs diffuse 'points', not "
                f"{self.diffuse!r}"
            )
        for name in "side samples batch_size width timesteps calls".split():
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} must be at least 1, got {getattr(self, name)}"
                )
        for name in (
            "prototypes mu weight_decay patience steps pretrain_steps"
        ).split():
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"{name} must be 0 or more, got {getattr(self, name)}"
                )
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(
                f"learning_rate must be above 0, got {self.learning_rate}"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(
                f"dropout must be 0 to below 1, got {self.dropout}"
            )

    def as_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)


def _check_kind(name: str, value: object, default: object) -> None:
    """Refuse ``steps="5"`` before it ends in a comparison of texts."""
    kinds = (
        (bool, "True or False"),
        (numbers.Integral, "a whole number"),
        (numbers.Real, "a number"),
        (str, "a name"),
    )
    kind, words = next(pair for pair in kinds if isinstance(default, pair[0]))
    as_number = isinstance(value, bool) and kind is not bool
    if not isinstance(value, kind) or as_number:
        raise ConfigError(f"{name} must be {words}, got {value!r}")


_TUNED = Settings(
    preset="tuned",
    isotropy="center",
    prototypes=100,
    bins="catalogue",
    predict="x0",
    condition="global",
    norm="group",
    output_relu=False,
    unit_scale=True,
    loss="balanced",
    optimizer="adamw",
    learning_rate=5e-4,
    weight_decay=1e-2,
    ema=True,
    patience=10,
    validate_every=50,
    sampler="one-call",
    calls=1,
    match="field",
)
PRESETS = {
    "paper": Settings(),
    "corrected": Settings(
        preset="corrected",
        isotropy="center",
        output_relu=False,
        unit_scale=True,
    ),
    "painter": replace(
        _TUNED, preset="painter", condition="film", learning_rate=1e-3
    ),
    "points": replace(
        _TUNED,
        preset="points",
        diffuse="points",
        learning_rate=3e-4,
        dropout=0.3,
        width=256,
        earliest=0.5,
        ema=False,
        samples=4,
    ),
    "tokens": replace(
        _TUNED,
        preset="tokens",
        diffuse="tokens",
        learning_rate=1e-3,
        width=128,
        thinning=0.4,
        dropout=0.5,
    ),
    "tuned": _TUNED,
}


def make_settings(
    preset: str, profile: Profile | None = None, **changes
) -> Settings:
    """A preset at the size of a profile, with some values changed.

    Args:
        preset: one of :data:`PRESETS`.
        profile: sets steps, batch size, width and samples; None keeps the
            values of the paper.
        **changes: values that replace those of preset and profile.

    Raises:
        ConfigError: unknown preset or setting.
    """
    check_choice("preset", preset, PRESETS)
    unknown = set(changes) - {field.name for field in fields(Settings)}
    if unknown:
        raise ConfigError(
            f"unknown setting {sorted(unknown)[0]!r} of SerenDiff; the known "
            "ones are listed at serendifflib.model.settings.Settings"
        )
    settings = PRESETS[preset]
    if profile is not None:
        settings = replace(settings, **_sizes(settings, profile))
    return replace(settings, **changes)


def _sizes(settings: Settings, profile: Profile) -> dict:
    """What a preset takes from a profile."""
    steps = profile.steps
    sizes = {
        "batch_size": profile.batch_size,
        "valid_users": profile.valid_users,
        "valid_candidates": profile.valid_candidates,
    }
    if settings.diffuse != "portraits":  # labels alone, for all steps
        steps += profile.pretrain_steps
    else:
        sizes["width"] = profile.width
    if settings.preset in ("painter", "tuned"):
        sizes["samples"] = profile.samples
        sizes["pretrain_steps"] = profile.pretrain_steps
    if settings.preset == "painter":  # it has more to learn
        steps *= 2
    if settings.preset == "tokens":  # cheap steps, and it starts from nothing
        steps *= 4
    # so that a long training is not stopped after a moment
    every = max(settings.validate_every, steps // LOOKS)
    return sizes | {"steps": steps, "validate_every": every}
