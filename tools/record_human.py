"""Write the totals over human answers to results/human.

Needs the files of `taobao-serendipity`, `goodreads-surprise` and
`movielens-small` in $SERENDIFF_DATA. Only totals are written, no answer of a
person:

    python tools/record_human.py
"""

from __future__ import annotations

import datetime

from serendifflib.experiments.human import TOTALS, record_totals

if __name__ == "__main__":
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    for name in TOTALS:
        record_totals(name, today)
        print("recorded", name)
