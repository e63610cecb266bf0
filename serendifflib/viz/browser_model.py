"""A trained model in a page: what a script needs to compute as Python does.

:func:`play` writes the weights of a small model of tokens
(:mod:`serendifflib.diffusion.tokens`) and a small catalogue into a page.
``browser_model.js`` is the model written again, ``playground.js`` lets a
reader edit a history. The page also holds Python's answers to some
histories, and says how far its own are from them.

Letters: N items, n history length, w width, S draws, L side.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import numpy as np
import torch

from serendifflib.diffusion.masking import draw
from serendifflib.errors import ConfigError, ModelError
from serendifflib.model.explain import Explanation
from serendifflib.model.serendiff import TOLD, SerenDiff
from serendifflib.portrait.scores import has_vector

FOLDED = ("content.", "mean.")  # layers that the items go through beforehand
SETTINGS = {
    "diffuse": "tokens",
    "bins": "catalogue",
    "weights": "uniform",
}


def play(
    model: SerenDiff,
    shelves: Mapping[str, Sequence[object]],
    starts: Mapping[str, Sequence[object]],
) -> Playground:
    """Put a model into a page in which a reader edits a history.

    Args:
        model: fitted, with :data:`SETTINGS`.
        shelves: item ids of the page's catalogue by the name of their shelf.
        starts: histories to begin with, as item ids, by name; the first is
            shown. Python answers them all, for comparison.

    Raises:
        ConfigError: another kind of model, no shelf, no start, an item
            without a vector or on two shelves, or a history of items that
            stand on none.
        UnknownItemError: no such id.
        ModelError: not fitted.
    """
    for name, value in SETTINGS.items():
        if getattr(model.settings, name) != value:
            raise ConfigError(
                f"{model.name} cannot run in a page: fit "
                f"SerenDiff('tokens'), here {name} must be {value!r}"
            )
    listed = [item for shelf in shelves.values() for item in shelf]
    if not listed or not starts:
        raise ConfigError("a playground needs items on shelves and a start")
    if len(set(listed)) < len(listed):
        raise ConfigError("an item stands on two shelves: name each once")
    for name, history in starts.items():
        if not len(history) or not set(history) <= set(listed):
            raise ConfigError(
                f"start {name!r}: name at least one item, all on shelves"
            )
    if model.catalogue is None:
        raise ModelError(f"{model.name}: fit it before use")
    numbers = sorted(model.catalogue.item_number(item) for item in listed)
    part = part_of(model, numbers)
    if not has_vector(part.points[1:]).all():
        raise ConfigError("an item without text has no place: leave it out")
    return Playground(part, dict(shelves), dict(starts))


def part_of(model: SerenDiff, items: Sequence[int]) -> SerenDiff:
    """The same network for the items 1..N that stay, ascending.

    It knows vectors and cells but no item numbers, so it can serve another
    shop. Quantiles are those of the shop's items, counts those of all
    training users.
    """
    rows, space = np.array([0, *items]), model.space
    if space is None:
        raise ModelError(f"{model.name}: fit it before use")
    part = copy.copy(model)
    part.prepare(
        replace(
            space,
            co_occurrence=space.co_occurrence.part(rows),
            vectors=space.vectors[rows],
        ),
        model.memberships[rows],
        model.catalogue.part(items),
    )
    # the network sees of an item what it saw in training
    part.points = model.points[rows]
    part.diffusion = part.make_diffusion()
    return part


@dataclass(frozen=True)
class Playground:
    """A small catalogue and a model that run in a page.

    ``shelves`` and ``starts`` are item ids by the name of a shelf or history.
    """

    model: SerenDiff
    shelves: Mapping[str, Sequence[object]]
    starts: Mapping[str, Sequence[object]]

    @torch.no_grad()
    def answer(self, history: Sequence[object]) -> dict[str, Any]:
        """What Python says about a history of item ids.

        ``past`` [n, 2] and ``positions`` [N, 2] in [0, 1]; ``zone`` [L, L]
        sums to one; ``draws``, cells [S, 2]; ``scores`` [N], None of what
        the reader has; ``order``, the new items from best to worst, from 0;
        ``why``, the sentences of the best.
        """
        model = self.model
        portrait = model.portrait(items=history)
        scores, zone = model.rank(portrait), model.zone(portrait)
        order = np.argsort(-scores, kind="stable")
        order = order[np.isfinite(scores[order])]
        memory = model.diffusion.remember(
            model.network, portrait.placed.portraits
        )
        lots = self.lots[None].to(model.device)
        cells = draw(model.network, memory, lots)[0, :, :2].cpu().numpy()
        known = (scores, zone, model.space, model.catalogue, cells)
        return {
            "past": portrait.positions.tolist(),
            "positions": portrait.catalogue_positions[1:].tolist(),
            "zone": zone.tolist(),
            "draws": cells.tolist(),
            "scores": [s if np.isfinite(s) else None for s in scores[1:]],
            "order": (order - 1).tolist(),
            "why": Explanation.of(portrait, int(order[0]), *known).text,
        }

    @property
    def lots(self) -> torch.Tensor:
        """Random numbers behind the draws, [S, 2 R]: alike for everybody."""
        generator = torch.Generator().manual_seed(self.model.seed)
        length = 2 * len(self.model.diffusion.sizes)
        return torch.rand(TOLD, length, generator=generator)

    @torch.no_grad()
    def asset(self) -> dict[str, Any]:
        """Everything that the script needs, as plain values.

        The items never change, so the first linear maps of the network are
        applied here: ``content`` and ``mean`` of each item are [N, w].
        """
        model, network = self.model, self.model.network
        diffusion, counts = model.diffusion, model.space.co_occurrence
        vectors, width = model.space.vectors[1:], model.points.shape[1]
        seen = (model.points[1:] * width**0.5).to(model.device)
        together = (counts.owners @ counts.matrix).toarray()[1:, 1:]
        np.fill_diagonal(together, 0.0)  # no item occurs with itself
        items = {
            "content": network.content(seen),
            "mean": network.mean(seen),
            "cosines": vectors @ vectors.T,
            "together": together,
            "pairs": counts.pairs[1:],
            "popularity": counts.users_of[1:] + 1.0,
            "ratios": diffusion.shares[1:] / diffusion.prior,
        }
        weights = network.state_dict()
        kept = [name for name in weights if not name.startswith(FOLDED)]

        def numbers(ids: Sequence[object]) -> list[int]:
            return [model.catalogue.item_number(item) - 1 for item in ids]

        return {
            "side": model.settings.side,
            "heads": network.attention.num_heads,
            "mu": counts.mu,
            "weights": {name: pack(weights[name]) for name in kept},
            "items": {name: pack(values) for name, values in items.items()},
            "lots": pack(self.lots),
            "titles": list(model.catalogue.titles),
            "shelves": [[n, numbers(ids)] for n, ids in self.shelves.items()],
            "starts": [
                {
                    "name": n,
                    "history": numbers(ids),
                    "python": self.answer(ids),
                }
                for n, ids in self.starts.items()
            ],
        }

    def html(self) -> str:
        """The playground as HTML that needs nothing from elsewhere."""
        return file_text("playground.html").format(
            style=file_text("playground.css"),
            model=file_text("browser_model.js"),
            script=file_text("playground.js"),
            data=script_safe(self.asset()),
            draws=TOLD,
        )

    def _repr_mimebundle_(self, **options: object) -> dict[str, str]:
        words = f"Playground with {len(self.model.catalogue.items)} items"
        return {"text/html": self.html(), "text/plain": words}


def pack(values: Any) -> dict[str, Any]:
    """Numbers as text: shape, and float32 (little-endian) in base64.

    >>> pack(np.array([[1.0, 2.0]]))
    {'shape': [1, 2], 'data': 'AACAPwAAAEA='}
    """
    array = np.asarray(torch.as_tensor(values).cpu(), dtype="<f4")
    text = base64.b64encode(array.tobytes()).decode()
    return {"shape": list(array.shape), "data": text}


def script_safe(data: object) -> str:
    """JSON that cannot end the script element around it.

    >>> json.loads(script_safe({"title": "</script>"}))
    {'title': '</script>'}
    >>> "<" in script_safe({"title": "</script>"})
    False
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def file_text(name: str) -> str:
    """A script or style sheet that lies beside this module."""
    return resources.files(__package__).joinpath(name).read_text("utf-8")
