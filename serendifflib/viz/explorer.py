"""A portrait to walk through: what lies in a cell, and what the model says.

A published page has no kernel. So everything that a reader may ask about a
few dozen users is computed first and put beside a small script, which runs
on the page, in JupyterLab and without a network. With a kernel the same
function adds controls that ask the model anew: another seed, more network
calls, another matching.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np

from serendifflib.errors import ConfigError
from serendifflib.model.explain import Explanation, UserPortrait
from serendifflib.portrait.picture import write_title
from serendifflib.portrait.portrait import cell_number, cell_of
from serendifflib.viz.frames import pages_are_static

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from serendifflib.model.serendiff import SerenDiff

MATCHINGS = ("field", "own-cell", "zone")
CALLS = (1, 2, 5, 10, 20)


def explore(
    model: SerenDiff,
    people: Sequence[UserPortrait],
    *,
    answers: Sequence[int] | None = None,
    k: int = 5,
) -> Explorer:
    """Ask a model about some users and make the portraits explorable.

    Args:
        model: a fitted model.
        people: portraits, e.g. from :meth:`serendifflib.SerenDiff.portrait`.
        answers: item number of each person's held-out item, to mark it.
        k: recommendations per person.

    Returns:
        the explorer; as the last expression of a cell it is shown.

    Raises:
        ConfigError: no people, other sides than the model's, or a number
            of answers that does not fit.
    """
    if not people:
        raise ConfigError("an explorer needs people: give at least one")
    if answers is not None and len(answers) != len(people):
        raise ConfigError(
            f"{len(answers)} answers for {len(people)} people: give one each"
        )
    sides = {portrait.side for portrait in people}
    if sides != {model.settings.side}:
        raise ConfigError(
            f"portraits of side {sorted(sides)}, a model of side "
            f"{model.settings.side}: make them with this model"
        )
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}")
    given = [None] * len(people) if answers is None else list(answers)
    return Explorer(model, tuple(people), tuple(given), k)


@dataclass(frozen=True)
class Explorer:
    """Portraits of some users with a model's answers.

    Attributes:
        model: the fitted model.
        people: their portraits.
        answers: number of each held-out item, or None.
        k: recommendations per person.
    """

    model: SerenDiff
    people: tuple[UserPortrait, ...]
    answers: tuple[int | None, ...]
    k: int

    def facts(
        self,
        which: Sequence[int] | None = None,
        *,
        calls: int | None = None,
        how: str | None = None,
        seed: int | None = None,
    ) -> list[dict[str, Any]]:
        """What the page shows of each person, as plain values.

        Cells are numbered x * L + y, with x along expectedness.

        Args:
            which: places in ``people``; None is all of them.
            calls: network calls; None is the model's own way to sample.
            how: matching; None is the model's own.
            seed: of the noise; None is the model's own.
        """
        places = range(len(self.people)) if which is None else which
        changes: dict[str, Any] = {} if how is None else {"match": how}
        if calls not in (None, self.model.settings.calls):
            sampler = "ddim" if calls > 1 else "one-call"
            changes |= {"sampler": sampler, "calls": calls}
        model = self.model.with_sampling(seed=seed, **changes)
        return [
            _facts(model, self.people[n], self.answers[n], self.k)
            for n in places
        ]

    def html(self, facts: list[dict[str, Any]] | None = None) -> str:
        """The explorer as HTML that needs nothing from elsewhere."""
        data = {
            "side": self.model.settings.side,
            "people": self.facts() if facts is None else facts,
        }
        return PAGE.format(
            style=_asset("explorer.css"),
            script=_asset("explorer.js"),
            data=script_safe(data),
            people=len(data["people"]),
        )

    def strip(self, which: Sequence[int] = (0,)) -> Figure:
        """Some of the people as a figure, for print and for no script."""
        fig, axes = plt.subplots(
            1,
            len(which),
            figsize=(3.6 * len(which), 3.9),
            layout="constrained",
            squeeze=False,
        )
        side = self.model.settings.side
        for ax, n in zip(axes.flat, which, strict=True):
            portrait, (facts,) = self.people[n], self.facts([n])
            zone = np.reshape(facts["zone"], (side, side))
            portrait.plot(ax=ax, zone=zone)
            best = [_middle(item["cell"], side) for item in facts["top"]]
            ax.plot(*np.transpose(best), "D", color="#b3257a", mec="white")
            write_title(ax, facts["name"], fontsize=10)
        return fig

    def controls(self) -> widgets.VBox:
        """The explorer under controls that ask the model anew."""
        names = [portrait.user for portrait in self.people]
        user = widgets.Dropdown(
            options=[(name, n) for n, name in enumerate(names)],
            description="user",
        )
        own = self.model.settings
        seed = widgets.BoundedIntText(
            value=self.model.seed, min=0, max=2**31 - 1, description="seed"
        )
        calls = widgets.SelectionSlider(
            options=sorted({own.calls, *CALLS} & {*range(own.timesteps + 1)}),
            value=own.calls,
            description="calls",
        )
        how = widgets.Dropdown(
            options=MATCHINGS, value=own.match, description="matching"
        )
        pane = widgets.Output()

        def show(change: object = None) -> None:
            facts = self.facts(
                [user.value], calls=calls.value, how=how.value, seed=seed.value
            )
            # Set, not captured by `with pane`: a program that executes a
            # notebook answers a capture on the very socket on which it
            # waits for the cell, and now and then waits for ever.
            pane.outputs = (
                {
                    "output_type": "display_data",
                    "data": {"text/html": self.html(facts)},
                    "metadata": {},
                },
            )

        for control in (user, seed, calls, how):
            control.observe(show, names="value")
        show()
        box = widgets.HBox([user, seed, calls, how])
        box.layout.flex_flow = "row wrap"
        return widgets.VBox([box, pane])

    def _repr_mimebundle_(self, **options: object) -> object:
        """Static on a page of the book, with controls beside a kernel."""
        if pages_are_static():
            words = f"Portrait explorer of {len(self.people)} users"
            return {"text/html": self.html(), "text/plain": words}
        return self.controls()._repr_mimebundle_(**options)


PAGE = """<style>{style}</style>
<div class="sd-explorer">
<script type="application/json">{data}</script>
<p class="sdx-fallback">Portraits of {people} users to walk through; they need
JavaScript. The figure that follows shows some of them.</p>
</div>
<script>{script}</script>"""


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


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _middle(cell: int, side: int) -> tuple[float, float]:
    x, y = divmod(cell, side)
    return (x + 0.5) / side, (y + 0.5) / side


def _facts(
    model: SerenDiff, portrait: UserPortrait, answer: int | None, k: int
) -> dict[str, Any]:
    side = portrait.side
    scores, strength = model.rank(portrait), model.zone(portrait)
    cells = cell_number(cell_of(portrait.catalogue_positions, side), side)
    order = np.argsort(-scores, kind="stable")
    order = order[np.isfinite(scores[order])]
    place = {int(item): n for n, item in enumerate(order, start=1)}

    def told(item: int) -> dict[str, Any]:
        explanation = Explanation.of(
            portrait, item, scores, strength, model.space, model.catalogue
        )
        return {
            "title": explanation.title,
            "cell": int(cells[item]),
            "place": place[item],
            "why": explanation.text,
        }

    first = {}  # best item of each cell: the first in the order
    for item in order.tolist():
        first.setdefault(int(cells[item]), item)
    zone = 100 * strength / max(strength.max(), 1e-12)
    history = cell_of(portrait.positions, side) @ (side, 1)
    return {
        "name": portrait.user,
        "about": f"{len(portrait.items)} items, reach {portrait.reach:.2f}",
        "history": [
            {"title": title, "cell": int(cell), "place": n}
            for n, (title, cell) in enumerate(
                zip(portrait.titles, history, strict=True), start=1
            )
        ],
        "zone": zone.round().astype(int).ravel().tolist(),
        "top": [told(int(item)) for item in order[:k]],
        "best": [
            told(first[cell]) if cell in first else None
            for cell in range(side * side)
        ],
        "answer": None
        if answer is None
        else {
            "title": model.catalogue.title(answer),
            "cell": int(cells[answer]),
            "place": place.get(int(answer), 0),
        },
    }
