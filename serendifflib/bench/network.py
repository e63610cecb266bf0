"""Training and sampling of the U-Net against what the device can do."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from serendifflib.bench.measure import (
    PAPER_SECONDS,
    Setting,
    copy_rate,
    count_flops,
    matrix_rate,
    say,
    spread,
    timed,
)
from serendifflib.diffusion.sampling import sample
from serendifflib.diffusion.schedule import DDPMSchedule
from serendifflib.diffusion.training import (
    TrainingSet,
    TrainingSettings,
    grid_loss,
    train,
)
from serendifflib.diffusion.unet import UNet, UNetSettings
from serendifflib.items import unit_rows
from serendifflib.portrait import Portraits
from serendifflib.presets import PRESETS

SIDE, CHANNELS, ITEMS, LENGTH = 10, 384, 2_000, 100
TARGET_SHARE = {"cpu": 0.6, "cuda": 0.3}  # of the device's matrix rate
ANCESTRAL_TARGET = {"cuda": 0.016}  # seconds per instance, 1,000 calls
CALL_TARGET = {"cpu": 0.060, "cuda": 0.0001}  # seconds per instance, 1 call


def bench_train(setting: Setting) -> dict:
    """Seconds of a step, counted operations, share of the matrix rate.

    The reference is a square matrix product on the same device: in float32
    on a processor, in bfloat16 on CUDA, where training computes in it.
    """
    on_gpu = setting.device.type == "cuda"
    batch = 4 if setting.quick else 128 if on_gpu else 16
    repeats = 3 if setting.quick else 20 if on_gpu else 3
    dtype = torch.bfloat16 if on_gpu else torch.float32
    result: dict = {"batch_size": batch, "presets": {}}
    for preset in ("paper", "tuned"):
        network = new_network(preset, quick=setting.quick)
        flops = step_flops(network, batch)
        before = matrix_rate(setting.device, dtype, quick=setting.quick)
        seconds = step_seconds(network, preset, batch, repeats, setting)
        after = matrix_rate(setting.device, dtype, quick=setting.quick)
        # others use the machine too: the roof is that of the same minutes
        roof = {k: statistics.mean([before[k], after[k]]) for k in before}
        rate = flops / seconds["median_s"]
        found = {
            "parameters": parameters(network),
            "step": seconds,
            "per_instance_s": seconds["median_s"] / batch,
            "flops_per_step": flops,
            "rate": rate,
            "matrix_rate": roof["wall"],
            "matrix_rate_cpu": roof["cpu"],
            "matrix_dtype": str(dtype).removeprefix("torch."),
            "share": rate / roof["wall"],
            "share_cpu": flops / seconds["cpu_median_s"] / roof["cpu"],
            "intensity": flops / step_bytes(network, batch),
        }
        result["presets"][preset] = found
        say(f"{preset}: seconds per step of {batch}", seconds["median_s"])
        say("share of the matrix rate", found["share"])
        say("the same by processor time", found["share_cpu"])
        print(f"  (target at least {TARGET_SHARE[setting.device.type]})")
        del network
    result["copy_rate"] = copy_rate(setting.device, quick=setting.quick)
    return result


def bench_sample(setting: Setting) -> dict:
    """Seconds per instance: 1,000 ancestral calls, one call, the paper.

    On a processor two ancestral steps stand for all of them: every step
    costs the same, so the thousand are 500 times as much.
    """
    on_gpu = setting.device.type == "cuda"
    batch = 2 if setting.quick else 512 if on_gpu else 4
    steps = 1000 if on_gpu and not setting.quick else 2
    repeats = 3
    device = setting.device
    result: dict = {
        "batch_size": batch,
        "ancestral_steps_measured": steps,
        "extrapolated": steps < 1000,
        "paper_s": PAPER_SECONDS,
        "presets": {},
    }
    for preset in ("paper", "tuned"):
        network = new_network(preset, quick=setting.quick).to(device).eval()
        denoise = denoiser(network, batch, device)
        start = torch.randn(batch, CHANNELS, SIDE, SIDE, device=device)

        def generate(
            sampler, timesteps, start=start, denoise=denoise, preset=preset
        ):
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

        one = timed(
            lambda g=generate: g("one-call", 1000), repeats, device=device
        )
        many = timed(
            lambda g=generate: g("ancestral", steps), repeats, device=device
        )
        ancestral = many["median_s"] / batch / steps * 1000
        call = one["median_s"] / batch
        flops = count_flops(lambda g=generate: g("one-call", 1000))
        result["presets"][preset] = {
            "parameters": parameters(network),
            "one_call": one,
            "one_call_per_instance_s": call,
            "one_call_per_instance_cpu_s": one["cpu_median_s"] / batch,
            "ancestral": many,
            "ancestral_per_instance_s": ancestral,
            "ancestral_per_instance_cpu_s": (
                many["cpu_median_s"] / batch / steps * 1000
            ),
            "ancestral_to_one_call": ancestral / call,
            "flops_per_call": flops / batch,
            "rate": flops / one["median_s"],
            "ahead_of_paper_one_call": PAPER_SECONDS / call,
            "ahead_of_paper_ancestral": PAPER_SECONDS / ancestral,
        }
        about = "extrapolated" if steps < 1000 else "measured"
        kind = device.type
        say(f"{preset}: one call per instance", call, CALL_TARGET[kind])
        say("by processor time", one["cpu_median_s"] / batch)
        say(
            f"{preset}: 1,000 ancestral calls per instance, {about}",
            ancestral,
            ANCESTRAL_TARGET.get(kind),
        )
        print(
            f"  the paper's {PAPER_SECONDS} s: {PAPER_SECONDS / call:.3g} "
            f"times one call, {PAPER_SECONDS / ancestral:.3g} times 1,000"
        )
        del network
    return result


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
    """Time between the starts of neighbouring training steps."""
    starts: list[float] = []
    worked: list[float] = []

    def note(*_):
        starts.append(time.perf_counter())
        worked.append(time.process_time())

    hook = network.register_forward_pre_hook(note)
    chosen = PRESETS[preset]
    try:
        train(
            network,
            DDPMSchedule.linear(1000),
            some_examples(),
            some_vectors(),
            SIDE,
            TrainingSettings(
                # the first step allocates, the last has no step after it
                steps=repeats + 2,
                batch_size=batch,
                learning_rate=1e-6,
                weight_decay=chosen.weight_decay,
                optimizer=chosen.optimizer,
                predict=chosen.predict,
                loss=chosen.loss,
                ema=chosen.ema,
            ),
            seed=0,
            device=setting.device,
        )
    finally:
        hook.remove()
    return spread(np.diff(starts[1:]).tolist()) | {
        "cpu_median_s": float(np.median(np.diff(worked[1:])))
    }


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
