"""A trained model in a page: what a script needs to compute as Python does.

A published page has no kernel. :func:`play` writes the weights of a small
model of tokens (:mod:`serendifflib.diffusion.tokens`) and a small catalogue
into the page; ``browser_model.js`` beside this file is the model written
again in plain JavaScript, ``playground.js`` lets a reader edit a history.
The page holds Python's answers to some histories, too, and says how far its
own are from them.

Letters: N items, n history length, P prototypes, w width, S draws, L side.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import torch

from serendifflib.diffusion.masking import draw
from serendifflib.diffusion.tokens import TokenDiffusion
from serendifflib.errors import ConfigError
from serendifflib.model.catalogue import Catalogue
from serendifflib.model.explain import Explanation
from serendifflib.model.serendiff import TOLD, SerenDiff
from serendifflib.portrait.portrait import Portraits, PortraitSpace
from serendifflib.portrait.scores import CoOccurrence, has_vector

FOLDED = ("content.", "mean.")  # layers that the items go through beforehand


def play(
    model: SerenDiff,
    shelves: Mapping[str, Sequence[object]],
    starts: Mapping[str, Sequence[object]],
) -> Playground:
    """Put a model into a page in which a reader edits a history.

    Args:
        model: fitted, of tokens without the token of popularity.
        shelves: item ids of the page's catalogue by the name of their shelf.
        starts: histories to begin with, as item ids, by name; the first is
            shown. Python answers them all, for comparison.

    Returns:
        the playground; as the last expression of a cell it is shown.

    Raises:
        ConfigError: another kind of model, no shelf, no start, an item
            without a vector or on two shelves, or a history of items that
            stand on none.
        UnknownItemError: no such id.
    """
    if not isinstance(model.diffusion, TokenDiffusion):
        raise ConfigError(
            f"{model.name} cannot run in a page: fit SerenDiff('tokens')"
        )
    if model.settings.popularity_bins:
        raise ConfigError(
            "a page holds no token of popularity: fit with popularity_bins=0"
        )
    listed = [str(item) for shelf in shelves.values() for item in shelf]
    if not listed or not starts:
        raise ConfigError("a playground needs items on shelves and a start")
    if len(set(listed)) < len(listed):
        raise ConfigError("an item stands on two shelves: name each once")
    for name, history in starts.items():
        if not history or not {str(item) for item in history} <= set(listed):
            raise ConfigError(
                f"start {name!r}: name at least one item, all on shelves"
            )
    numbers = sorted(model.catalogue.item_number(item) for item in listed)
    if not has_vector(model.space.vectors[numbers]).all():
        raise ConfigError("an item without text has no place: leave it out")
    return Playground(part_of(model, numbers), dict(shelves), dict(starts))


def part_of(model: SerenDiff, items: Sequence[int]) -> SerenDiff:
    """The same network for a part of the catalogue.

    The network knows vectors and cells but no item numbers, so it can serve
    another shop. Expectedness, relevance and their quantiles are those of
    the shop's own catalogue, the counts those of all training users.

    Args:
        model: fitted, of tokens.
        items: item numbers 1..N that stay, ascending.
    """
    rows = np.concatenate([[0], np.asarray(items, dtype=np.int64)])
    space, known = model.space, model.catalogue
    counts = CoOccurrence.from_matrix(
        space.co_occurrence.matrix[:, rows], space.co_occurrence.mu
    )
    part = copy.copy(model)
    part.prepare(
        PortraitSpace(
            counts,
            space.vectors[rows],
            "catalogue",
            "uniform",
            space.relevance_range,
            space.expectedness_map,
            space.relevance_map,
        ),
        model.memberships[rows],
        Catalogue(
            name=known.name,
            source=known.source,
            users=[],
            items=[known.items[row - 1] for row in rows[1:]],
            titles=[known.title(row) for row in rows[1:]],
            histories=[],
            counted=np.zeros(0, dtype=np.int64),
        ),
    )
    # what the network sees of an item is what it saw in training
    part.points = model.points[rows]
    part.diffusion = part.make_diffusion()
    return part


@dataclass(frozen=True)
class Playground:
    """A small catalogue and a model that run in a page.

    Attributes:
        model: for the items of the page alone, see :func:`part_of`.
        shelves: item ids by the name of their shelf.
        starts: histories as item ids, by name.
    """

    model: SerenDiff
    shelves: Mapping[str, Sequence[object]]
    starts: Mapping[str, Sequence[object]]

    def answer(self, history: Sequence[object]) -> dict[str, Any]:
        """What Python says about a history of item ids.

        Returns:
            ``past`` [n, 2] and ``positions`` [N, 2] in [0, 1]; ``zone``
            [L, L], sums to one; ``draws``, cells [S, 2]; ``scores`` [N],
            also of what the reader has; ``order``, the new items from best
            to worst, numbered from 0; ``why``, the sentences of the best.
        """
        model = self.model
        portrait = model.portrait(items=history)
        scores, zone = model.rank(portrait), model.zone(portrait)
        order = np.argsort(-scores, kind="stable")
        order = order[np.isfinite(scores[order])]
        cells = self._draws(portrait)
        best = Explanation.of(
            portrait,
            int(order[0]),
            scores,
            zone,
            model.space,
            model.catalogue,
            cells,
        )
        return {
            "past": portrait.positions.tolist(),
            "positions": portrait.catalogue_positions[1:].tolist(),
            "zone": zone.tolist(),
            "draws": cells.tolist(),
            "scores": [
                float(s) if np.isfinite(s) else None for s in scores[1:]
            ],
            "order": (order - 1).tolist(),
            "why": best.text,
        }

    @property
    def listed(self) -> list[object]:
        """All item ids, shelf by shelf."""
        return [item for shelf in self.shelves.values() for item in shelf]

    @property
    def lots(self) -> torch.Tensor:
        """Random numbers behind the draws, [S, 2 R]: the same for everybody.

        Then nothing but the history moves the draws of a page.
        """
        generator = torch.Generator().manual_seed(self.model.seed)
        length = 2 * len(self.model.diffusion.sizes)
        return torch.rand(TOLD, length, generator=generator)

    @torch.no_grad()
    def _draws(self, portrait) -> np.ndarray:
        diffusion, network = self.model.diffusion, self.model.network
        portraits = Portraits(
            torch.from_numpy(portrait.items)[None],
            torch.from_numpy(portrait.positions)[None],
        )
        memory = diffusion.remember(network, portraits)
        lots = self.lots[None].to(diffusion.device)
        return draw(network, memory, lots)[0, :, :2].cpu().numpy()

    @torch.no_grad()
    def asset(self) -> dict[str, Any]:
        """Everything that the script needs, as plain values.

        The items never change, so the first linear maps of the network are
        applied here: ``content`` and ``mean`` of each item are [N, w].
        """
        model, network = self.model, self.model.network
        diffusion, space = model.diffusion, model.space
        counts = space.co_occurrence
        width = model.points.shape[1]
        seen = (model.points[1:] * width**0.5).to(diffusion.device)
        together = (counts.owners @ counts.matrix).toarray()
        np.fill_diagonal(together, 0.0)
        number = model.catalogue.item_number
        weights = {
            name: pack(values)
            for name, values in network.state_dict().items()
            if not name.startswith(FOLDED)
        }
        return {
            "side": model.settings.side,
            "heads": network.attention.num_heads,
            "mu": counts.mu,
            "weights": weights,
            "items": {
                "content": pack(network.content(seen)),
                "mean": pack(network.mean(seen)),
                "cosines": pack(space.vectors[1:] @ space.vectors[1:].T),
                "together": pack(together[1:, 1:]),
                "pairs": pack(counts.pairs[1:]),
                "popularity": pack(counts.users_of[1:] + 1.0),
                "ratios": pack(diffusion.shares[1:] / diffusion.prior),
            },
            "lots": pack(self.lots),
            "titles": list(model.catalogue.titles),
            "shelves": [
                [name, [number(item) - 1 for item in shelf]]
                for name, shelf in self.shelves.items()
            ],
            "starts": [
                {
                    "name": name,
                    "history": [number(item) - 1 for item in history],
                    "python": self.answer(history),
                }
                for name, history in self.starts.items()
            ],
        }

    def html(self) -> str:
        """The playground as HTML that needs nothing from elsewhere."""
        return PAGE.format(
            style=file_text("playground.css"),
            model=file_text("browser_model.js"),
            script=file_text("playground.js"),
            data=script_safe(self.asset()),
        )

    def _repr_mimebundle_(self, **options: object) -> dict[str, str]:
        words = f"Playground with {len(self.model.catalogue.items)} items"
        return {"text/html": self.html(), "text/plain": words}


PAGE = """<style>{style}</style>
<div class="sd-play">
<script type="application/json">{data}</script>
<p class="sdp-fallback">Here a history can be edited and a trained model
answers at once. It runs in your browser and needs JavaScript, but no kernel.
</p>
<svg class="sdp-plane" viewBox="-7 -1 108 108" role="img" hidden
aria-label="A portrait."></svg>
</div>
<script>{model}</script>
<script>{script}</script>"""


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
