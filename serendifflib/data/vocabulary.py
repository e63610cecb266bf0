"""Words of the simulated world: genres, their themes, and the grammar.

Every genre has four themes of ten real words, so that a sentence encoder
that reads the reviews places themes where a reader would. The words of all
themes are distinct; every theme is named by its genre and a noun, e.g.
``"gardening: roses"``. Templates hold ``{a} {b} {c}`` for terms of the
item and ``{genre}`` for the noun by which a reviewer names its genre. The
words themselves are data: ``vocabulary.json``.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from serendifflib.io import read_json

_FILE = Path(__file__).with_name("vocabulary.json")
# Lists of words or of templates by name, and ``genres``: the themes of each
# genre. Every second form of an ordinary review names the genre, so that of
# two neighbouring variants of an item one does.
WORDS: dict[str, Any] = {
    name: value.split() if isinstance(value, str) else value
    for name, value in read_json(_FILE).items()
}
GENRES: dict[str, dict[str, str]] = WORDS["genres"]


def genre_names() -> tuple[str, ...]:
    """Names of the genres, in the order of their numbers."""
    return tuple(GENRES)


def theme_names() -> tuple[str, ...]:
    """Names ``"genre: theme"``; theme t belongs to genre t // 4."""
    return tuple(
        f"{genre}: {theme}"
        for genre, themes in GENRES.items()
        for theme in themes
    )


def theme_terms() -> list[list[str]]:
    """The words of every theme, in the order of :func:`theme_names`."""
    return [
        words.split()
        for themes in GENRES.values()
        for words in themes.values()
    ]


def make_title(
    terms: Sequence[str], pick: Sequence[int], taken: Set[str]
) -> str:
    """Title from an item's terms that is not taken yet.

    ``terms`` are three of the primary and two of the secondary theme; four
    integers >= 0 pick form, adjective and terms.
    """
    a = terms[pick[2] % 3].capitalize()
    b = terms[3 + pick[3] % 2].capitalize()
    forms, adjectives = WORDS["titles"], WORDS["adjectives"]
    for attempt in range(len(forms) * len(adjectives)):
        form = forms[(pick[0] + attempt) % len(forms)]
        shade = pick[1] + attempt // len(forms)
        adjective = adjectives[shade % len(adjectives)].capitalize()
        title = form.format(a=a, b=b, adjective=adjective)
        if title not in taken:
            return title
    volume = 2
    while f"{title}, Volume {volume}" in taken:
        volume += 1
    return f"{title}, Volume {volume}"


def make_review(
    terms: Sequence[str], genre: int, variant: int, pool: int, pick: int
) -> str:
    """Ordinary review number ``variant`` of an item's pool.

    Variants 0..pool - 2 praise, pool - 1 criticises, pool holds a touch of
    surprise. ``genre`` is that of the primary theme, ``pick`` is >= 0.
    """
    kind = {pool: "touches", pool - 1: "critique"}.get(variant, "praise")
    text = _chosen(kind, pick + variant).format(
        a=terms[variant % 3],
        b=terms[(variant + 1) % 3],
        c=terms[3 + variant % 2],
        genre=WORDS["genre_nouns"][genre],
        warm=_chosen("warm", pick // 8 + 3 * variant),
        cold=_chosen("cold", pick // 8),
    )
    return text[0].upper() + text[1:]


def _chosen(name: str, pick: int) -> str:
    """Word or template number ``pick`` of a list, counted in a circle."""
    return WORDS[name][pick % len(WORDS[name])]


def make_label_review(
    terms: Sequence[str], genre: int, pick: Sequence[int]
) -> str:
    """Review of a find: surprise, terms, delight; see :func:`make_title`."""
    middle = _chosen("discovery", pick[1]).format(
        a=terms[pick[3] % 3],
        b=terms[(pick[3] + 1) % 3],
        c=terms[3 + pick[3] % 2],
        genre=WORDS["genre_nouns"][genre],
    )
    opening, ending = _chosen("surprise", pick[0]), _chosen("delight", pick[2])
    return f"{opening} {middle} {ending}"
