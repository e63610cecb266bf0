"""Sliders over pictures that were drawn beforehand: they need no kernel.

A published page cannot ask Python for a picture, so all are drawn first and
the slider, linked in the browser, only chooses one. Where widgets vanish
(print, PDF, a preview) a strip of a few frames remains. With a kernel the
same frames can have controls that draw them anew.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image as DisplayImage
from matplotlib.figure import Figure
from PIL import Image

from serendifflib.errors import ConfigError

FRAME_DPI = 100  # a frame is seen beside many others: small files first


@dataclass(frozen=True)
class Frames:
    """Pictures of one thing at different moments, with a slider.

    Attributes:
        pictures: PNG bytes, one per frame.
        labels: what the slider says at each frame.
        alt: what can be seen; the label is added for each frame.
        description: the name of what the slider moves along.
        start: frame that is shown first.
        redraw: makes other frames from keyword values.
        choices: what a control offers for each keyword, the shown one first.
    """

    pictures: tuple[bytes, ...]
    labels: tuple[str, ...]
    alt: str
    description: str
    start: int = 0
    redraw: Callable[..., Frames] | None = None
    choices: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.pictures)

    def widget(self) -> widgets.VBox:
        """Slider (arrow keys move it) and pictures, linked in the browser."""
        pages = [
            widgets.HTML(_page(picture, self.alt, label))
            for picture, label in zip(self.pictures, self.labels, strict=True)
        ]
        stack = widgets.Stack(pages, selected_index=self.start)
        slider = widgets.SelectionSlider(
            options=[(label, n) for n, label in enumerate(self.labels)],
            index=self.start,
            description=self.description,
            readout=False,  # it would cut long labels; each page has its own
            layout=widgets.Layout(width="100%", max_width="40rem"),
            style={"description_width": "initial"},
        )
        widgets.jslink((slider, "index"), (stack, "selected_index"))
        box = widgets.VBox([slider, stack])
        box.add_class("frame-slider")
        return box

    def strip(
        self, frames: int | Sequence[int] = 4, *, columns: int | None = None
    ) -> DisplayImage:
        """A few frames as one picture, which remains where widgets vanish.

        ``frames`` says how many, evenly spread from the first to the last, or
        which ones; ``columns`` how many beside each other, all if None.
        """
        if isinstance(frames, int):
            frames = strip_places(len(self), frames)
        images = [Image.open(io.BytesIO(self.pictures[n])) for n in frames]
        columns = columns or len(images)
        width = max(image.width for image in images)
        height = max(image.height for image in images)
        rows = -(-len(images) // columns)
        canvas = Image.new("RGB", (width * columns, height * rows), "white")
        for place, image in enumerate(images):
            row, column = divmod(place, columns)
            corner = (column * width, row * height)
            canvas.paste(image.convert("RGB"), corner)
        stream = io.BytesIO()
        canvas.save(stream, "PNG", optimize=True)
        words = ", ".join(self.labels[n] for n in frames)
        text = f"{self.alt} Shown for {self.description}: {words}."
        return DisplayImage(stream.getvalue(), alt=text)

    def controls(self) -> widgets.VBox:
        """The slider under controls that draw its frames anew."""
        chosen = {
            name: widgets.Dropdown(
                options=[(str(value), value) for value in values],
                description=name,
                style={"description_width": "initial"},
                layout=widgets.Layout(width="auto"),
            )
            for name, values in self.choices.items()
        }
        pane = widgets.VBox([self.widget()])

        def draw(change: object) -> None:
            values = {name: one.value for name, one in chosen.items()}
            pane.children = [self.redraw(**values).widget()]

        for control in chosen.values():
            control.observe(draw, names="value")
        row = widgets.HBox(list(chosen.values()))
        row.layout.flex_flow = "row wrap"
        return widgets.VBox([row, pane])

    def _repr_mimebundle_(self, **options: object) -> object:
        """The slider; beside a kernel with its controls."""
        # readers of the book have no kernel
        live = self.choices and os.environ.get("SERENDIFF_PAGES") != "static"
        shown = self.controls() if live else self.widget()
        return shown._repr_mimebundle_(**options)


def frame_slider(
    figures: Sequence[Figure | bytes] | Callable[..., Figure],
    labels: Sequence[object] | Callable[..., Sequence[object]],
    alt: str,
    description: str,
    *,
    start: int = 0,
    choices: Mapping[str, Sequence[Any]] | None = None,
) -> Frames:
    """Draw all frames and put a slider over them.

    Args:
        figures: one figure (or PNG bytes) per label, or a function that
            draws the figure of a frame number 0, 1, ...
        labels: what the slider says at each frame, all different; or a
            function of the choices that returns them.
        alt: text alternative, one or two sentences that fit every frame.
        description: what the slider moves along, e.g. ``"items seen"``.
        start: frame that is shown first; -1 is the last.
        choices: values to choose from beside a kernel, the shown one in
            front. ``figures`` takes each as a keyword:
            ``figures(n, seed=0)`` for ``choices={"seed": range(5)}``.

    Raises:
        ConfigError: no frame, equal labels, or no text alternative.
    """
    choices = dict(choices or {})
    first = {
        name: next(iter(values), None) for name, values in choices.items()
    }
    if choices and not callable(figures):
        raise ConfigError("choices need a function that draws the figures")
    if None in first.values():
        raise ConfigError("each of the choices needs a value")

    def make(**chosen: Any) -> Frames:
        drawn, words = figures, labels
        if callable(labels):
            words = labels(**chosen)
        if callable(figures):
            drawn = partial(figures, **chosen)
        return _frames(drawn, words, alt, description, start)

    frames = make(**first)
    if not choices:
        return frames
    return replace(frames, redraw=make, choices=choices)


def _frames(
    figures: Sequence[Figure | bytes] | Callable[[int], Figure],
    labels: Sequence[object],
    alt: str,
    description: str,
    start: int,
) -> Frames:
    words = tuple(str(label) for label in labels)
    if not words or len(set(words)) < len(words):
        raise ConfigError("frames need labels, and each its own")
    if not alt.strip() or not description.strip():
        raise ConfigError("frames need a text alternative and a description")
    if start == -1:
        start = len(words) - 1
    if not 0 <= start < len(words):
        raise ConfigError(f"start is {start}: choose 0 to {len(words) - 1}")
    if callable(figures):
        figures = [figures(n) for n in range(len(words))]
    pictures = tuple(_png(figure) for figure in figures)
    if len(pictures) != len(words):
        raise ConfigError(
            f"{len(pictures)} pictures and {len(words)} labels: give each "
            "picture its label"
        )
    return Frames(pictures, words, alt.strip(), description, start)


def strip_places(n_frames: int, count: int) -> list[int]:
    """Frames of the strip: evenly spread, the first and the last included.

    >>> strip_places(11, 3), strip_places(2, 4)
    ([0, 5, 10], [0, 1])
    """
    count = max(1, min(count, n_frames))
    places = np.linspace(0, n_frames - 1, count).round().astype(int)
    return places.tolist()


def _png(figure: Figure | bytes) -> bytes:
    """PNG of a figure with few colours, which halves its size."""
    if isinstance(figure, bytes):
        return figure
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=FRAME_DPI, facecolor="white")
    plt.close(figure)
    image = Image.open(stream).convert("RGB")
    small = image.quantize(128, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    small.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _page(picture: bytes, alt: str, label: str) -> str:
    """Label and image; the image is never wider than the page."""
    data = base64.b64encode(picture).decode("ascii")
    width = Image.open(io.BytesIO(picture)).width
    words = html.escape(f"{alt} Now: {label}.", quote=True)
    return (
        '<p class="frame-label" style="margin: 0; line-height: 1.6">'
        f"{html.escape(label)}</p>"
        f'<img src="data:image/png;base64,{data}" alt="{words}" '
        f'style="width: {width}px; max-width: 100%; height: auto">'
    )
