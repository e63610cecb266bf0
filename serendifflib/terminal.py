"""What the command line prints, without what a terminal would obey."""

from __future__ import annotations

import bisect
import itertools
import re
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it takes long to load
    import pandas as pd

# control characters, line breaks, and what turns the direction of writing
_COMMANDS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)
WIDEST = 60  # columns of the terminal for one column of a table


def harmless(text: str) -> str:
    r"""Text of a data set without what a terminal takes for a command.

    >>> harmless("red: \x1b[31m")
    'red: \ufffd[31m'
    """
    return _COMMANDS.sub("\ufffd", text)


def print_lines(text: str) -> None:
    """Print lines of our own, of which each may hold text of the data."""
    for line in text.split("\n"):
        print(harmless(line))


def print_table(table: pd.DataFrame) -> None:
    """Print a table whose texts may be those of the data."""
    import pandas as pd

    with pd.option_context(
        "display.max_columns", None,
        "display.max_rows", None,
        "display.max_colwidth", None,
        "display.width", 250,
        "display.precision", 3,
        "display.unicode.east_asian_width", True,
    ):  # fmt: skip
        shown = table.map(
            lambda v: _narrow(harmless(v)) if isinstance(v, str) else v
        )
        print(shown.to_string(index=False))


def _narrow(text: str) -> str:
    """At most :data:`WIDEST` columns; wide letters take two."""
    wide = [unicodedata.east_asian_width(letter) in "WF" for letter in text]
    ends = list(itertools.accumulate(1 + is_wide for is_wide in wide))
    if not text or ends[-1] <= WIDEST:
        return text
    return text[: bisect.bisect_right(ends, WIDEST - 3)] + "..."


def print_notes(notes: Iterable[str]) -> None:
    """Print what is to be known of the data, a line each."""
    for note in notes:
        print(f"note: {harmless(note)}")
