"""Training and sampling of the U-Net against what the device can do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from benchmarks.measure import (
    PAPER_SECONDS,
    Setting,
    copy_rate,
    count_flops,
    matrix_rate,
    say,
    timed,
)
from benchmarks.scale import some_unit_vectors
from benchmarks.systems import step_seconds
from serendifflib.data.splits import user_folds
from serendifflib.data.world import World
from serendifflib.diffusion.sampling import sample
from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.diffusion.unet import UNet, UNetSettings
from serendifflib.model.serendiff import SerenDiff
from serendifflib.model.settings import PRESETS
from serendifflib.portrait.fold import prepare_fold
from serendifflib.portrait.portrait import Portraits

SIDE, CHANNELS, ITEMS, LENGTH = 10, 384, 2_000, 100
TRAIN_BATCH = {"cpu": 64, "cuda": 512}  # a processor: as its profiles do
SMALL_BATCH = 128  # of the records on a GPU
CALL_BATCH = {"cpu": 64, "cuda": 512}  # a processor: as `generate` does
FEWER_USERS = (1, 4, 16)  # per call, beside it
TARGET_SHARE = {"cpu": 0.6, "cuda": 0.3}  # of the device's matrix rate
ANCESTRAL_TARGET = {"cuda": 0.016}  # seconds per instance, 1,000 calls
CALL_TARGET = {"cpu": 0.060, "cuda": 0.0001}  # seconds per instance, 1 call


class RandomEncoder:
    """Unit vectors of the real width, for any text."""

    fingerprint = "random"

    def encode(self, texts) -> np.ndarray:
        """[len(texts), 384]."""
        return some_unit_vectors(len(texts) + 1).numpy()[1:]


def bench_train(setting: Setting) -> dict:
    """Seconds of a step, counted operations, share of the matrix rate.

    ``SerenDiff.fit`` trains as it always does: on CUDA in bfloat16. The
    reference is a square matrix product on the same device and in the same
    precision, in the same minutes.
    """
    on_gpu = setting.device.type == "cuda"
    batch = 4 if setting.quick else TRAIN_BATCH[setting.device.type]
    steps = 2 if setting.quick else 50 if on_gpu else 4
    dtype = torch.bfloat16 if on_gpu else torch.float32
    data = World("strong", n_users=800, n_items=ITEMS).interactions()
    split = user_folds(data, 5, seed=0)[0]
    fold = prepare_fold(data, split, encoder=RandomEncoder())
    result: dict = {"batch_size": batch, "compiled": on_gpu, "presets": {}}
    for preset in ("paper", "tuned"):
        model = SerenDiff(
            preset, device=setting.device.type, progress=False,
            width=16 if setting.quick else CHANNELS, prototypes=0,
            steps=steps, batch_size=batch, pretrain_steps=0, patience=0,
        )  # fmt: skip
        model.fit(fold)
        network = model.network
        roof = matrix_rate(setting.device, dtype, quick=setting.quick)
        seconds = step_seconds(model)
        work = step_flops(network, batch)
        found = {
            "parameters": parameters(network),
            "step": {"median_s": seconds},
            "per_instance_s": seconds / batch,
            "flops_per_step": work,
            "rate": work / seconds,
            "matrix_rate": roof["wall"],
            "matrix_rate_cpu": roof["cpu"],
            "matrix_dtype": str(dtype).removeprefix("torch."),
            "share": work / seconds / roof["wall"],
            "intensity": work / step_bytes(network, batch),
        }
        result["presets"][preset] = found
        say(f"{preset}: seconds per step of {batch}", seconds)
        say("share of the matrix rate", found["share"])
        print(f"  (target at least {TARGET_SHARE[setting.device.type]})")
    result["copy_rate"] = copy_rate(setting.device, quick=setting.quick)
    return result


def bench_sample(setting: Setting) -> dict:
    """Seconds per instance: 1,000 ancestral calls, one call, the paper.

    A few ancestral steps stand for all of them: every step costs the same.
    """
    kind = setting.device.type
    batch = 2 if setting.quick else CALL_BATCH[kind]
    steps = 2 if setting.quick or kind == "cpu" else 100
    result: dict = {
        "batch_size": batch,
        "compiled": False,
        "ancestral_steps_measured": steps,
        "extrapolated": True,
        "paper_s": PAPER_SECONDS,
        "presets": {},
    }
    for preset in ("paper", "tuned"):
        network = new_network(preset, quick=setting.quick)
        network.to(setting.device).eval()
        found = _sample_record(network, preset, batch, steps, setting)
        result["presets"][preset] = found
        if kind == "cpu":
            found["one_call_fewer_users_s"] = {
                str(few): _timed(
                    _sampling(network, preset, few, setting), "one-call"
                )["median_s"]
                / few
                for few in FEWER_USERS
            }
        call = found["one_call_per_instance_s"]
        say(f"{preset}: one call per instance", call, CALL_TARGET[kind])
        say(
            f"{preset}: 1,000 ancestral calls per instance",
            found["ancestral_per_instance_s"],
            ANCESTRAL_TARGET.get(kind),
        )
    return result


def _sample_record(network, preset, batch, steps, setting) -> dict:
    generate = _sampling(network, preset, batch, setting)
    one = _timed(generate, "one-call")
    many = _timed(generate, "ancestral", steps)
    thousand = 1000 / batch / steps
    call = one["median_s"] / batch
    ancestral = many["median_s"] * thousand
    x = torch.randn(batch, CHANNELS, SIDE, SIDE, device=setting.device)
    t = torch.zeros(batch, dtype=torch.long, device=setting.device)
    with torch.no_grad():
        denoise = denoiser(network, batch, setting.device)
        flops = count_flops(lambda: denoise(x, t))
    return {
        "one_call": one,
        "one_call_per_instance_s": call,
        "one_call_per_instance_cpu_s": one["cpu_median_s"] / batch,
        "ancestral": many,
        "ancestral_per_instance_s": ancestral,
        "ancestral_per_instance_cpu_s": many["cpu_median_s"] * thousand,
        "parameters": parameters(network),
        "ancestral_to_one_call": ancestral / call,
        "flops_per_call": flops / batch,
        "rate": flops / one["median_s"],
        "ahead_of_paper_one_call": PAPER_SECONDS / call,
        "ahead_of_paper_ancestral": PAPER_SECONDS / ancestral,
    }


def _timed(generate, sampler: str, timesteps: int = 1000) -> dict:
    return timed(lambda: generate(sampler, timesteps), 0.2)


def _sampling(
    network, preset: str, batch: int, setting: Setting
) -> Callable[[str, int], torch.Tensor]:
    """Sampler and its timesteps -> portraits for ``batch`` users."""
    device = setting.device
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


def step_flops(network: UNet, batch: int) -> int:
    """Operations of one step, forward and backward; counted on one user."""
    portrait, counts = some_portraits(2)
    device = next(network.parameters()).device

    def step():
        x = torch.randn(2, CHANNELS, SIDE, SIDE, device=device)
        t = torch.zeros(2, dtype=torch.long, device=device)
        output = network(x, t, portrait.to(device), counts.to(device))
        (output - x).square().mean().backward()

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
    portrait, counts = some_portraits(batch)
    portrait, counts = portrait.to(device), counts.to(device)
    return lambda x, t: network(x, t, portrait, counts)


def some_portraits(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random portraits with histories as long as those of SerenLens."""
    generator = torch.Generator().manual_seed(1)
    shape = (count, LENGTH)
    sparse = Portraits(
        torch.randint(1, ITEMS + 1, shape, generator=generator),
        torch.rand(*shape, 2, generator=generator, dtype=torch.float64),
    )
    vectors = some_unit_vectors(ITEMS + 1, CHANNELS)
    return sparse.dense(torch.arange(count), vectors, SIDE)
