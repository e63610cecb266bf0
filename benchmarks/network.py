"""Training and sampling of the U-Net against what the device can do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.measure import (
    PAPER_SECONDS,
    Setting,
    copy_rate,
    count_flops,
    matrix_rate,
    say,
    spread,
    timed,
)
from serendifflib.diffusion.convolutions import matrix_training
from serendifflib.diffusion.sampling import sample
from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.diffusion.team import Team, training_as
from serendifflib.diffusion.training import (
    TrainingReport,
    TrainingSet,
    TrainingSettings,
    grid_loss,
    train,
)
from serendifflib.diffusion.unet import UNet, UNetSettings
from serendifflib.model.compiled import (
    compiled,
    compiled_model,
    compiled_training,
)
from serendifflib.model.serendiff import SerenDiff
from serendifflib.model.settings import PRESETS
from serendifflib.portrait.items import unit_rows
from serendifflib.portrait.portrait import Portraits

SIDE, CHANNELS, ITEMS, LENGTH = 10, 384, 2_000, 100
TRAIN_BATCH = {"cpu": 64, "cuda": 512}  # a processor: as its profiles do
SMALL_BATCH = 128  # of the full profile
CALL_BATCH = {"cpu": 64, "cuda": 512}  # a processor: as `generate` does
FEWER_USERS = (1, 4, 16)  # per call, beside it
TARGET_SHARE = {"cpu": 0.6, "cuda": 0.3}  # of the device's matrix rate
ANCESTRAL_TARGET = {"cuda": 0.016}  # seconds per instance, 1,000 calls
CALL_TARGET = {"cpu": 0.060, "cuda": 0.0001}  # seconds per instance, 1 call


def bench_train(setting: Setting) -> dict:
    """Seconds of a step, counted operations, share of the matrix rate.

    The reference is a square matrix product on the same device: in float32
    on a processor, in bfloat16 on CUDA, where training computes in it.

    On a processor convolutions are computed as matrix products, for as many
    users as the profiles for processors take; on CUDA steps are compiled and
    taken on 512 users. Beside them stand steps of the plain network, and on
    CUDA steps on the 128 users of the full profile and the loss curve in
    float32.
    """
    on_gpu = setting.device.type == "cuda"
    batch = 4 if setting.quick else TRAIN_BATCH[setting.device.type]
    fast = compiled_training if on_gpu else matrix_training
    result: dict = {
        "batch_size": batch,
        "compiled": on_gpu,
        "presets": {},
    }
    for preset in ("paper", "tuned"):
        train_record = partial(
            _train_record, preset, flops=user_flops(preset, setting)
        )
        found = train_record(batch, setting, how=fast)
        result["presets"][preset] = found
        say(
            f"{preset}: seconds per step of {batch}", found["step"]["median_s"]
        )
        say("share of the matrix rate", found["share"])
        say("the same by processor time", found["share_cpu"])
        print(f"  (target at least {TARGET_SHARE[setting.device.type]})")
        plain = train_record(batch, setting, how=nullcontext)
        found["not_compiled" if on_gpu else "plain"] = plain
        say("share of the plain network", plain["share"])
        if on_gpu:
            small = train_record(SMALL_BATCH, setting, how=nullcontext)
            found[f"batch_{SMALL_BATCH}"] = small
            say(f"share, not compiled, {SMALL_BATCH} users", small["share"])
    if on_gpu:
        result["loss_curve"] = curves = loss_curves(setting)
        say("loss against float32, mean difference", curves["mixed"])
        say("float32 with another seed", curves["other_seed"])
    result["copy_rate"] = copy_rate(setting.device, quick=setting.quick)
    return result


def _train_record(
    preset: str,
    batch: int,
    setting: Setting,
    *,
    flops: int,
    how: Callable[[], AbstractContextManager],
) -> dict:
    on_gpu = setting.device.type == "cuda"
    repeats = 3 if setting.quick or not on_gpu else 20
    dtype = torch.bfloat16 if on_gpu else torch.float32
    network = new_network(preset, quick=setting.quick).to(setting.device)
    before = matrix_rate(setting.device, dtype, quick=setting.quick)
    with how():
        seconds = step_seconds(network, preset, batch, repeats, setting)
    after = matrix_rate(setting.device, dtype, quick=setting.quick)
    # others use the machine too: the roof is that of the same minutes
    roof = {k: statistics.mean([before[k], after[k]]) for k in before}
    work = flops * batch
    rate = work / seconds["median_s"]
    return {
        "parameters": parameters(network),
        "step": seconds,
        "per_instance_s": seconds["median_s"] / batch,
        "flops_per_step": work,
        "rate": rate,
        "matrix_rate": roof["wall"],
        "matrix_rate_cpu": roof["cpu"],
        "matrix_dtype": str(dtype).removeprefix("torch."),
        "share": rate / roof["wall"],
        "share_cpu": work / seconds["cpu_median_s"] / roof["cpu"],
        "intensity": work / step_bytes(network, batch),
    }


def loss_curves(setting: Setting, steps: int = 100) -> dict:
    """How far compiled steps in bfloat16 lead from plain ones in float32.

    Three trainings of ``tuned`` from the same weights; losses are averaged
    over ten steps, and differences are relative to float32.

    Returns:
        ``float32``, ``compiled_bfloat16`` and ``float32_other_seed``: the
        averaged losses; ``mixed`` and ``other_seed``: the mean absolute
        relative difference of the last two from the first.
    """
    batch = 4 if setting.quick else SMALL_BATCH

    def curve(team, seed: int) -> np.ndarray:
        network = new_network("tuned", quick=setting.quick)
        with team:
            report = run_steps(
                network, "tuned", batch, steps, setting, seed=seed
            )
        return np.reshape(report.losses, (-1, min(10, steps))).mean(axis=1)

    plain = curve(training_as(PreciseTeam()), 0)
    mixed = curve(compiled_training(), 0)
    other = curve(training_as(PreciseTeam()), 1)
    return {
        "steps": steps,
        "batch_size": batch,
        "float32": plain.tolist(),
        "compiled_bfloat16": mixed.tolist(),
        "float32_other_seed": other.tolist(),
        "mixed": float(np.abs(mixed / plain - 1).mean()),
        "other_seed": float(np.abs(other / plain - 1).mean()),
    }


class PreciseTeam(Team):
    """Trains in float32 where others train in mixed precision."""

    def wrap(self, network: torch.nn.Module) -> torch.nn.Module:
        """See :meth:`Team.wrap`; the view computes in float32."""
        return _Precise(super().wrap(network))


class _Precise(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, *given):
        with torch.autocast(x.device.type, enabled=False):
            return self.network(x, *given)


def bench_sample(setting: Setting) -> dict:
    """Seconds per instance: 1,000 ancestral calls, one call, the paper.

    On a processor two ancestral steps stand for all of them: every step
    costs the same, so the thousand are 500 times as much. Its batch is that
    of ``SerenDiff.generate``; one call for fewer users stands beside it, one
    of them alone included. On CUDA the network is compiled; beside it stand
    the plain network (50 steps), and the whole model with the noise of each
    user and the way back to the processor (100 steps).
    """
    on_gpu = setting.device.type == "cuda"
    kind = setting.device.type
    batch = 2 if setting.quick else CALL_BATCH[kind]
    steps = 1000 if on_gpu and not setting.quick else 2
    result: dict = {
        "batch_size": batch,
        "compiled": on_gpu,
        "ancestral_steps_measured": steps,
        "extrapolated": steps < 1000,
        "paper_s": PAPER_SECONDS,
        "presets": {},
    }
    about = "extrapolated" if steps < 1000 else "measured"
    for preset in ("paper", "tuned"):
        network = new_network(preset, quick=setting.quick)
        network.to(setting.device).eval()
        fast = compiled(network) if on_gpu else network
        found = _sample_record(fast, preset, batch, steps, setting)
        one_call = count_flops(
            lambda n=network, p=preset: _once(n, p, batch, setting.device)
        )
        seconds = found["one_call"]["median_s"]
        call = found["one_call_per_instance_s"]
        ancestral = found["ancestral_per_instance_s"]
        found |= {
            "parameters": parameters(network),
            "ancestral_to_one_call": ancestral / call,
            "flops_per_call": one_call / batch,
            "rate": one_call / seconds,
            "ahead_of_paper_one_call": PAPER_SECONDS / call,
            "ahead_of_paper_ancestral": PAPER_SECONDS / ancestral,
        }
        result["presets"][preset] = found
        say(f"{preset}: one call per instance", call, CALL_TARGET[kind])
        say("by processor time", found["one_call_per_instance_cpu_s"])
        if not on_gpu:
            found["one_call_fewer_users_s"] = {
                str(few): _one_call(network, preset, few, setting)["median_s"]
                / few
                for few in FEWER_USERS
            }
            for few, value in found["one_call_fewer_users_s"].items():
                say(f"with {few} users per call", value)
        say(
            f"{preset}: 1,000 ancestral calls per instance, {about}",
            ancestral,
            ANCESTRAL_TARGET.get(kind),
        )
        print(
            f"  the paper's {PAPER_SECONDS} s: {PAPER_SECONDS / call:.3g} "
            f"times one call, {PAPER_SECONDS / ancestral:.3g} times 1,000"
        )
        if on_gpu:
            found["not_compiled"] = _sample_record(
                network, preset, batch, min(steps, 50), setting
            )
            found["whole_model"] = _model_record(
                network, preset, batch, min(steps, 100), setting
            )
            whole = found["whole_model"]
            say("whole model, one call", whole["one_call_per_instance_s"])
            say("whole model, ancestral", whole["ancestral_per_instance_s"])
        del network, fast
    return result


def _sample_record(
    network, preset: str, batch: int, steps: int, setting: Setting
) -> dict:
    one = _one_call(network, preset, batch, setting)
    generate = _sampling(network, preset, batch, setting.device)
    many = timed(
        lambda: generate("ancestral", steps), 3, device=setting.device
    )
    return _per_instance(one, many, batch, steps)


def _one_call(network, preset: str, batch: int, setting: Setting) -> dict:
    generate = _sampling(network, preset, batch, setting.device)
    return timed(lambda: generate("one-call", 1000), 3, device=setting.device)


def _sampling(
    network, preset: str, batch: int, device: torch.device
) -> Callable[[str, int], torch.Tensor]:
    """Sampler and its timesteps -> portraits for ``batch`` users."""
    denoise = denoiser(network, batch, device)
    start = torch.randn(batch, CHANNELS, SIDE, SIDE, device=device)

    def generate(sampler: str, timesteps: int) -> torch.Tensor:
        with torch.no_grad():
            return sample(
                denoise,
                start,
                DDPMSchedule.linear(timesteps),
                sampler=sampler,
                predict=PRESETS[preset].predict,
                calls=1,
                noise=lambda shape: torch.randn(shape, device=device),
            )

    return generate


def _model_record(
    network, preset: str, batch: int, steps: int, setting: Setting
) -> dict:
    """The same through a whole model: what its user waits for."""
    model = SerenDiff(
        preset,
        device=setting.device.type,
        progress=False,
        timesteps=steps,
        calls=1,
        prototypes=0,
        samples=1,
    )
    model.points, model.network = some_vectors(), network
    view = compiled_model(model)
    portraits = some_examples().portraits.part(torch.arange(batch), "cpu")

    def generate(sampler: str):
        return view.generate(portraits, batch_size=batch, sampler=sampler)

    one = timed(lambda: generate("one-call"), 3, device=setting.device)
    many = timed(lambda: generate("ancestral"), 1, device=setting.device)
    return _per_instance(one, many, batch, steps)


def _per_instance(one: dict, many: dict, batch: int, steps: int) -> dict:
    thousand = 1000 / batch / steps
    return {
        "one_call": one,
        "one_call_per_instance_s": one["median_s"] / batch,
        "one_call_per_instance_cpu_s": one["cpu_median_s"] / batch,
        "ancestral": many,
        "ancestral_per_instance_s": many["median_s"] * thousand,
        "ancestral_per_instance_cpu_s": many["cpu_median_s"] * thousand,
    }


def _once(network, preset: str, batch: int, device: torch.device) -> None:
    x = torch.randn(batch, CHANNELS, SIDE, SIDE, device=device)
    t = torch.zeros(batch, dtype=torch.long, device=device)
    with torch.no_grad():
        denoiser(network, batch, device)(x, t)


def new_network(preset: str, *, quick: bool = False) -> UNet:
    """The U-Net of a preset at the paper's width (quick: 16)."""
    wide, chosen = 16 if quick else 384, PRESETS[preset]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet(
            UNetSettings(
                channels=CHANNELS,
                widths=(wide, 2 * wide, 4 * wide),
                condition=chosen.condition,
                norm=chosen.norm,
                dropout=chosen.dropout,
                output_relu=chosen.output_relu,
            )
        )


def parameters(network: torch.nn.Module) -> int:
    """How many weights a network has."""
    return sum(p.numel() for p in network.parameters())


def step_seconds(network, preset, batch, repeats, setting) -> dict:
    """Time between neighbouring steps of the optimizer."""
    steps: list[float] = []
    worked: list[float] = []

    def note(*_):
        steps.append(time.perf_counter())
        worked.append(time.process_time())

    # the loop waits for each loss, so this is in step with the device
    hook = register_optimizer_step_post_hook(note)
    try:
        # the first allocates, and two make one interval
        run_steps(
            network, preset, batch, repeats + 2, setting, learning_rate=1e-6
        )
    finally:
        hook.remove()
    return spread(np.diff(steps[1:]).tolist()) | {
        "cpu_median_s": float(np.median(np.diff(worked[1:])))
    }


def run_steps(
    network,
    preset: str,
    batch: int,
    steps: int,
    setting: Setting,
    *,
    seed: int = 0,
    learning_rate: float | None = None,
) -> TrainingReport:
    """Train on random examples as the preset says."""
    chosen = PRESETS[preset]
    return train(
        network,
        DDPMSchedule.linear(1000),
        some_examples(),
        some_vectors(),
        SIDE,
        TrainingSettings(
            steps=steps,
            batch_size=batch,
            learning_rate=learning_rate or chosen.learning_rate,
            weight_decay=chosen.weight_decay,
            optimizer=chosen.optimizer,
            predict=chosen.predict,
            loss=chosen.loss,
            ema=chosen.ema,
        ),
        seed=seed,
        device=setting.device,
    )


def user_flops(preset: str, setting: Setting) -> int:
    """Operations per user of a training step, there and back."""
    network = new_network(preset, quick=setting.quick).to(setting.device)
    return step_flops(network, 1)


def step_flops(network: UNet, batch: int) -> int:
    """Operations of one step, forward and backward; counted on one user."""
    portrait, counts = some_examples().portraits.dense(
        torch.arange(2), some_vectors(), SIDE
    )
    device = next(network.parameters()).device

    def step():
        x = torch.randn(2, CHANNELS, SIDE, SIDE, device=device)
        t = torch.zeros(2, dtype=torch.long, device=device)
        output = network(x, t, portrait.to(device), counts.to(device))
        cells = torch.zeros(2, 2, dtype=torch.long, device=device)
        grid_loss(output, x, cells, "uniform").backward()

    total = count_flops(step)
    network.zero_grad(set_to_none=True)
    return total // 2 * batch


def step_bytes(network: UNet, batch: int) -> int:
    """Bytes that a step has to move at least.

    Weights are read by the forward and the backward pass, gradients are
    written, read twice (clipping, optimizer), and Adam reads and writes
    weights and two moments; the batch itself comes on top.
    """
    weights = parameters(network) * 4
    return 11 * weights + 6 * batch * CHANNELS * SIDE**2 * 4


def denoiser(network: UNet, batch: int, device: torch.device):
    """The network with the portraits of ``batch`` users."""
    portrait, counts = some_examples().portraits.dense(
        torch.arange(batch), some_vectors(), SIDE
    )
    portrait, counts = portrait.to(device), counts.to(device)
    return lambda x, t: network(x, t, portrait, counts)


def some_vectors() -> torch.Tensor:
    """Random unit item vectors, [N + 1, d]."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(ITEMS + 1, CHANNELS, generator=generator)
    vectors[0] = 0.0
    return torch.from_numpy(unit_rows(vectors.numpy()))


def some_examples() -> TrainingSet:
    """Random portraits with histories as long as those of SerenLens."""
    generator = torch.Generator().manual_seed(1)
    shape = (512, LENGTH)
    return TrainingSet(
        Portraits(
            torch.randint(1, ITEMS + 1, shape, generator=generator),
            torch.rand(*shape, 2, generator=generator, dtype=torch.float64),
        ),
        torch.randint(1, ITEMS + 1, shape[:1], generator=generator),
        torch.rand(shape[0], 2, generator=generator, dtype=torch.float64),
    )
