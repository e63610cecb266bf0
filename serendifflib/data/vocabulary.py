"""Words of the simulated world: genres, their themes, and the grammar.

Every genre has four themes of ten real words, so that a sentence encoder
that reads the reviews places themes where a reader would. The words of all
themes are distinct; every theme is named by its genre and a noun, e.g.
``"gardening: roses"``. Templates hold ``{a} {b} {c}`` for terms of the
item and ``{genre}`` for the noun by which a reviewer names its genre. The
words themselves are data: ``vocabulary.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from importlib import resources

_WORDS = json.loads(
    resources.files("serendifflib.data")
    .joinpath("vocabulary.json")
    .read_text("utf-8")
)
VOCABULARY: dict[str, dict[str, str]] = _WORDS["genres"]
# How a reviewer names a genre, in the order of VOCABULARY.
GENRE_NOUNS: list[str] = _WORDS["genre_nouns"].split()
ADJECTIVES: list[str] = _WORDS["adjectives"].split()
TITLES: list[str] = _WORDS["titles"]
# Ordinary reviews. Every second form names the genre, so that of two
# neighbouring variants of an item one does.
PRAISE: list[str] = _WORDS["praise"]
CRITIQUE: list[str] = _WORDS["critique"]
WARM: list[str] = _WORDS["warm"].split()
COLD: list[str] = _WORDS["cold"].split()
# A touch of surprise in an ordinary review (about 3% of label-0 rows).
TOUCHES: list[str] = _WORDS["touches"]
# Label-1 reviews: a serendipity opening, then the item's terms, an ending.
SURPRISE: list[str] = _WORDS["surprise"]
DISCOVERY: list[str] = _WORDS["discovery"]
DELIGHT: list[str] = _WORDS["delight"]


def genre_names() -> tuple[str, ...]:
    """Names of the genres, in the order of their numbers."""
    return tuple(VOCABULARY)


def theme_names() -> tuple[str, ...]:
    """Names ``"genre: theme"``; theme t belongs to genre t // 4."""
    return tuple(
        f"{genre}: {theme}"
        for genre, themes in VOCABULARY.items()
        for theme in themes
    )


def theme_terms() -> list[list[str]]:
    """The words of every theme, in the order of :func:`theme_names`."""
    return [
        words.split()
        for themes in VOCABULARY.values()
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
    for attempt in range(len(TITLES) * len(ADJECTIVES)):
        form = TITLES[(pick[0] + attempt) % len(TITLES)]
        shade = pick[1] + attempt // len(TITLES)
        adjective = ADJECTIVES[shade % len(ADJECTIVES)].capitalize()
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

    Args:
        terms: three terms of the primary and two of the secondary theme.
        genre: number of the primary theme's genre.
        variant: 0..pool - 2 praise, pool - 1 criticises, pool holds a
            touch of surprise.
        pool: size of the pool.
        pick: integer >= 0 of the item that chooses forms and adjectives.
    """
    if variant == pool:
        forms = TOUCHES
    else:
        forms = CRITIQUE if variant == pool - 1 else PRAISE
    text = forms[(pick + variant) % len(forms)].format(
        a=terms[variant % 3],
        b=terms[(variant + 1) % 3],
        c=terms[3 + variant % 2],
        genre=GENRE_NOUNS[genre],
        warm=WARM[(pick // 8 + 3 * variant) % len(WARM)],
        cold=COLD[pick // 8 % len(COLD)],
    )
    return text[0].upper() + text[1:]


def make_label_review(
    terms: Sequence[str], genre: int, pick: Sequence[int]
) -> str:
    """Review of a serendipitous find: surprise, the terms, delight.

    Arguments as in :func:`make_title`.
    """
    middle = DISCOVERY[pick[1] % len(DISCOVERY)].format(
        a=terms[pick[3] % 3],
        b=terms[(pick[3] + 1) % 3],
        c=terms[3 + pick[3] % 2],
        genre=GENRE_NOUNS[genre],
    )
    opening = SURPRISE[pick[0] % len(SURPRISE)]
    return f"{opening} {middle} {DELIGHT[pick[2] % len(DELIGHT)]}"
