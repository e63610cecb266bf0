"""Ranking whole catalogues for all users of SerenLens-Books."""

from __future__ import annotations

import torch

from benchmarks.measure import Setting, say, timed
from serendifflib.model.matching import match
from serendifflib.model.ranking import score_catalogue, top_items

USERS, ITEMS, CHANNELS, SIDE = 2346, 113_876, 384, 10  # Table 1, App. B
TARGET = {"cpu": 60.0, "cuda": 1.0}  # seconds for all users


def bench_match(setting: Setting) -> dict:
    """The ten best of all items for all users, points and cells given.

    The reference is ``match``, which gathers the
    vectors of all candidates of a user.
    """
    items = 2_000 if setting.quick else ITEMS
    users = 16 if setting.quick else USERS
    device = setting.device
    part = min(users, 64)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(items, CHANNELS, generator=generator)
    vectors = torch.nn.functional.normalize(vectors, dim=1).to(device)
    generated = torch.randn(
        part, CHANNELS, SIDE, SIDE, generator=generator
    ).to(device)
    cells = torch.randint(
        SIDE * SIDE, (part, items), generator=generator, dtype=torch.int16
    ).to(device)
    result: dict = {"users": users, "items": items, "matchings": {}}

    few = slice(0, 2)
    grid = torch.stack(
        [cells[few].long() // SIDE, cells[few].long() % SIDE], dim=-1
    )
    everything = vectors.expand(2, -1, -1)
    gathered = timed(
        lambda: match(generated[few], everything, grid, "field"),
        3,
        device=device,
    )
    reference = gathered["median_s"] / 2
    result["match_per_user_s"] = reference
    wanted = match(generated[few], everything, grid, "field")
    found = score_catalogue(generated[few], vectors, cells[few], "field")
    result["largest_difference"] = float((found - wanted).abs().max())
    for how in ("field", "own-cell", "zone"):
        seconds = timed(
            lambda how=how: top_items(generated, vectors, cells, how, 10),
            3,
            device=device,
        )
        per_user = seconds["median_s"] / part
        result["matchings"][how] = {
            "seconds": seconds,
            "users_measured": part,
            "per_user_s": per_user,
            "all_users_s": per_user * users,
            "all_users_cpu_s": seconds["cpu_median_s"] / part * users,
            "ratio_to_match": reference / per_user,
        }
        say(
            f"{how}: all {users} users, from {part}",
            per_user * users,
            TARGET[device.type],
        )
        say("by processor time", result["matchings"][how]["all_users_cpu_s"])
    say(
        "times as fast as match()",
        result["matchings"]["field"]["ratio_to_match"],
    )
    return result
