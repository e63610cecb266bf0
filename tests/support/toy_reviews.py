"""A small table of reviews that can be fitted, for commands."""

import csv

from serendifflib.data.interactions import COLUMNS


def reviews(labels=True):
    """12 users with 8 of 30 items each; the last row has the label."""
    return [
        [
            f"u{user:02}",
            f"i{(5 * user + 3 * place) % 30:02}",
            1600001000 + 10 * place,
            f"about item{(5 * user + 3 * place) % 30} and user{user}",
            4,
            int(labels and place == 7),
        ]
        for user in range(12)
        for place in range(8)
    ]


def write_reviews(path, rows=None, header=COLUMNS):
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(reviews() if rows is None else rows)
