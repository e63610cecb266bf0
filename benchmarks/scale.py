"""How time grows: with the world (1x to 8x), and with n, d and L (App. C)."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.measure import (
    Setting,
    count_flops,
    say,
    slope,
    timed,
)
from serendifflib.baselines.layers import Block
from serendifflib.diffusion.unet import UNet, UNetSettings
from serendifflib.portrait.encoding import unit_rows
from serendifflib.portrait.portrait import Portraits, PortraitSpace
from serendifflib.portrait.scores import CoOccurrence

FACTORS = (1, 2, 4, 8)
USERS, ITEMS, LENGTH = 1_000, 8_000, 40  # of the world at 1x
ASKED = 16  # users whose time is measured at every size
COMPLEXITY = {  # exponents of App. C, in n, d and L
    "SerenDiff": {"n": 0.0, "d": 2.0, "L": 2.0},
    "attention": {"n": (1.0, 2.0), "d": (1.0, 2.0)},
}


def bench_scale(setting: Setting) -> dict:
    """Slopes of log time against log size; time is the processor's."""
    return {"world": world_slopes(setting), "complexity": complexity(setting)}


def world_slopes(setting: Setting) -> dict:
    """Users and items both grow; what a user costs, and what all cost.

    Counting is measured whole; scores and portraits on a few
    users, times the number of users.
    """
    users, items = (100, 400) if setting.quick else (USERS, ITEMS)
    span = 0.01 if setting.quick else 1.0
    times: dict[str, list[float]] = {
        "co-occurrence": [], "portrait per user": [],
        "catalogue scores per user": [],
    }  # fmt: skip
    for factor in FACTORS:
        histories = some_histories(users * factor, items * factor)
        vectors = some_unit_vectors(items * factor + 1)
        counted = timed(
            lambda h=histories, n=items * factor: CoOccurrence.fit(h, n),
            span,
        )
        times["co-occurrence"].append(counted["cpu_median_s"])
        few = histories[:ASKED]
        fitted = PortraitSpace.from_histories(few, vectors)
        space = PortraitSpace(
            CoOccurrence.fit(histories, items * factor),
            vectors,
            fitted.bins,
            fitted.weights,
            fitted.relevance_range,
            fitted.expectedness_map,
            fitted.relevance_map,
        )
        for name, ask in (
            ("portrait per user", space.positions),
            ("catalogue scores per user", space.catalogue_scores),
        ):
            found = timed(
                lambda ask=ask, few=few: [ask(h, own=h) for h in few], span
            )
            times[name].append(found["cpu_median_s"] / len(few))
        print(f"  {factor}x measured", flush=True)
    result: dict = {"factors": list(FACTORS), "users": users, "items": items}
    for name, seconds in times.items():
        one = slope(FACTORS, seconds)
        result[name] = {"seconds": seconds, "slope": one}
        if name.endswith("per user"):
            result[name]["slope_all_users"] = one + 1.0
        say(f"{name}: slope", one)
    return result


def complexity(setting: Setting) -> dict:
    """App. C: O(L^2 d^2) for SerenDiff, O(n d^2 + n^2 d) for its rivals.

    One size grows while the others stay. Operations are counted exactly;
    seconds are measured. The rivals are represented by the attention block
    that the library's sequence models are made of.
    """
    sizes = {
        "SerenDiff": {
            "L": ([8, 16, 32], lambda L: (64, L, 50)),
            "d": ([48, 96, 192], lambda d: (d, 8, 50)),
            "n": ([50, 100, 200, 400], lambda n: (64, 8, n)),
        },
        "attention": {
            "n": ([64, 256, 1024, 2048], lambda n: (64, n)),
            "d": ([64, 128, 256], lambda d: (d, 64)),
        },
    }
    work = {"SerenDiff": _unet_call, "attention": _attention_call}
    span = 0.01 if setting.quick else 0.1
    result: dict = {}
    for model, axes in sizes.items():
        result[model] = {}
        for axis, (values, arguments) in axes.items():
            flops, seconds = [], []
            for value in values:
                call, counted = work[model](*arguments(value))
                flops.append(counted)
                seconds.append(timed(call, span)["cpu_median_s"])
            found = {
                "sizes": values,
                "flops": flops,
                "seconds": seconds,
                "flops_slope": slope(values, flops),
                "seconds_slope": slope(values, seconds),
                "last_flops_slope": slope(values[-2:], flops[-2:]),
                "claimed": COMPLEXITY[model][axis],
            }
            result[model][axis] = found
            say(f"{model}, {axis}: slope of operations", found["flops_slope"])
            say(f"{model}, {axis}: slope of seconds", found["seconds_slope"])
    return result


def _unet_call(d: int, side: int, n: int):
    """From the history to the network's output, one user."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(
            UNetSettings(channels=d, widths=(d, 2 * d, 4 * d))
        ).eval()
    vectors = some_unit_vectors(1000, d)
    generator = torch.Generator().manual_seed(0)
    sparse = Portraits(
        torch.randint(1, 1000, (1, n), generator=generator),
        torch.rand(1, n, 2, generator=generator, dtype=torch.float64),
    )
    x = torch.randn(1, d, side, side, generator=generator)
    t = torch.zeros(1, dtype=torch.long)

    def call():
        with torch.no_grad():
            portrait, counts = sparse.dense(torch.arange(1), vectors, side)
            return network(x, t, portrait, counts)

    return call, count_flops(call)


def _attention_call(d: int, n: int):
    """One block over a history of n items.

    torch does not count the fused attention of processors; its two products
    are 4 n^2 d operations.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = Block(d, 1, d, 0.0).eval()
    x = torch.randn(1, n, d, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 1, n, n, dtype=torch.bool)

    def call():
        with torch.no_grad():
            return block(x, mask)

    linear = sum(
        2 * n * layer.weight.numel()
        for layer in block.modules()
        if isinstance(layer, torch.nn.Linear)
    )
    return call, linear + 4 * n * n * d


def some_histories(users: int, items: int) -> list[np.ndarray]:
    """Histories by popularity (Zipf), as many items per user at any size."""
    random = np.random.default_rng(0)
    weights = 1.0 / np.arange(10, items + 10)
    shape = (users, LENGTH)
    drawn = random.choice(items, size=shape, p=weights / weights.sum()) + 1
    return [np.unique(row) for row in drawn]


def some_unit_vectors(count: int, width: int = 384) -> torch.Tensor:
    """Random unit vectors [count, width]; row 0 is zero."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((count, width), np.float32)
    vectors[0] = 0.0
    return torch.from_numpy(unit_rows(vectors))
