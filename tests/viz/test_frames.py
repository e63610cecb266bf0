"""Sliders over frames: what the static page gets, and what it must say."""

import base64
import io
import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from ipywidgets.embed import embed_data
from PIL import Image

from serendifflib.errors import ConfigError
from serendifflib.portrait.picture import new_figure
from serendifflib.viz.frames import frame_slider

matplotlib.use("agg")


def block(shade, width=20):
    stream = io.BytesIO()
    Image.new("RGB", (width, 10), (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def slides(n=5, **options):
    return frame_slider(
        [block(20 * k) for k in range(n)],
        [f"{k} seen" for k in range(n)],
        "A red block.",
        "items",
        **options,
    )


def shade_of(page):
    data = re.search(r"base64,([^\"]+)", page.value)[1]
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    return image.convert("RGB").getpixel((0, 0))[0]


def test_the_slider_chooses_the_page_of_its_label():
    slider, stack = slides().widget().children
    for place, (label, _) in enumerate(slider.options):
        assert label == f"{place} seen"
        assert shade_of(stack.children[place]) == 20 * place
        assert f"Now: {label}." in stack.children[place].value
    assert slider.index == stack.selected_index == 0


def test_the_link_runs_in_the_browser():
    box = slides(start=3).widget()
    slider, stack = box.children
    state = embed_data(views=[box])["manager_state"]["state"]
    links = [m for m in state.values() if m["model_name"] == "LinkModel"]
    ends = [(m["state"]["source"], m["state"]["target"]) for m in links]
    assert (
        [f"IPY_MODEL_{slider.model_id}", "index"],
        [f"IPY_MODEL_{stack.model_id}", "selected_index"],
    ) in ends
    assert stack.selected_index == 3


def test_every_frame_has_a_text_alternative_that_cannot_break_the_page():
    shown = frame_slider([block(1)], ['2 < 3 "x"'], 'A & "b".', "step")
    value = shown.widget().children[1].children[0].value
    alt = re.search(r'alt="([^"]*)"', value)[1]
    assert alt == "A &amp; &quot;b&quot;. Now: 2 &lt; 3 &quot;x&quot;."


def test_the_strip_holds_first_and_last_frame_and_says_so():
    shown = slides(9).strip(3)
    strip = Image.open(io.BytesIO(shown.data))
    assert strip.size == (60, 10)
    assert [strip.getpixel((x, 0))[0] for x in (0, 20, 40)] == [0, 80, 160]
    words = "Shown for items: 0 seen, 4 seen, 8 seen."
    assert shown.alt == f"A red block. {words}"


def test_the_strip_takes_chosen_frames_row_by_row():
    shown = slides(9).strip([1, 2, -1], columns=2)
    strip = Image.open(io.BytesIO(shown.data))
    assert strip.size == (40, 20)
    corners = [(0, 0), (20, 0), (0, 10)]
    assert [strip.getpixel(c)[0] for c in corners] == [20, 40, 160]
    assert strip.getpixel((20, 10)) == (255, 255, 255)


def test_frames_show_themselves_as_their_slider():
    bundle = slides()._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert "application/vnd.jupyter.widget-view+json" in data


def test_a_drawer_is_called_once_per_label_and_its_figures_are_closed():
    asked = []

    def draw(number):
        asked.append(number)
        figure, axes = new_figure(2, 1)
        axes[0, 0].plot(np.arange(number + 2))
        return figure

    before = plt.get_fignums()
    drawn = frame_slider(draw, range(3), "A line.", "points")
    assert asked == [0, 1, 2]
    assert len(drawn) == 3
    assert len(set(drawn.pictures)) == 3
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": []}, "labels"),
        ({"labels": ["a", "a"]}, "labels"),
        ({"labels": ["a", "b", "c"]}, "2 pictures and 3 labels"),
        ({"alt": " "}, "text alternative"),
        ({"description": ""}, "description"),
        ({"start": 2}, "0 to 1"),
    ],
)
def test_what_cannot_be_shown_is_refused(change, message):
    given = {
        "figures": [block(0), block(1)],
        "labels": ["a", "b"],
        "alt": "A block.",
        "description": "step",
    }
    with pytest.raises(ConfigError, match=message):
        frame_slider(**(given | change))


def shaded(number, shade=0, step=20):
    return block(shade + step * number)


def with_choices(**options):
    return frame_slider(
        shaded,
        lambda shade, step: [f"{shade} + {step * k}" for k in range(3)],
        "A red block.",
        "items",
        choices={"shade": [0, 100], "step": [20, 10]},
        **options,
    )


def test_a_choice_draws_all_frames_anew():
    box = with_choices(start=-1).controls()
    shade, step = box.children[0].children
    assert (shade.description, step.description) == ("shade", "step")

    def now():
        slider, stack = box.children[1].children[0].children
        labels = [label for label, _ in slider.options]
        return labels, [shade_of(page) for page in stack.children]

    assert now() == (["0 + 0", "0 + 20", "0 + 40"], [0, 20, 40])
    shade.value, step.value = 100, 10
    assert now() == (["100 + 0", "100 + 10", "100 + 20"], [100, 110, 120])
    slider = box.children[1].children[0].children[0]
    assert slider.index == 2  # the last frame first, as asked


def test_a_static_page_has_the_slider_alone(monkeypatch):
    def widget(frames):
        bundle = frames._repr_mimebundle_()
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        number = data["application/vnd.jupyter.widget-view+json"]["model_id"]
        return {str(type(w)) for w in everything(number)}

    def everything(number):
        from ipywidgets.widgets.widget import _instances

        waiting = [_instances[number]]
        while waiting:
            one = waiting.pop()
            yield one
            waiting += getattr(one, "children", ())

    assert any("Dropdown" in kind for kind in widget(with_choices()))
    assert not any("Dropdown" in kind for kind in widget(slides()))
    monkeypatch.setenv("SERENDIFF_PAGES", "static")
    assert not any("Dropdown" in kind for kind in widget(with_choices()))


def test_choices_need_a_drawer_and_values():
    with pytest.raises(ConfigError, match="function"):
        frame_slider([block(1)], ["a"], "A.", "b", choices={"x": [1]})
    with pytest.raises(ConfigError, match="value"):
        frame_slider(shaded, ["a"], "A.", "b", choices={"shade": []})
