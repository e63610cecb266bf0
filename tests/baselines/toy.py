"""A world small enough to know by heart (specification, section 15).

40 users, 200 items, 8 topics of 25 items. A user reads one topic, and now
and then a book of another topic that looks like chance; the serendipitous
items come from the partner topic (topic + 3), which is rare in everybody's
history. Cosine to the history therefore misses them.
"""

import numpy as np
import pandas as pd
import torch

from serendifflib.data.interactions import Interactions
from serendifflib.data.splits import Split, make_examples
from serendifflib.portrait.encoding import unit_rows
from serendifflib.portrait.fold import FoldData

N_USERS, N_TOPICS, PER_TOPIC = 40, 8, 25
N_ITEMS = N_TOPICS * PER_TOPIC
READS, STRAYS, LABELS = 12, 2, 4


def topic_of(item):
    """Topic of item numbers 1..200."""
    return (item - 1) // PER_TOPIC


def partner(topic):
    return (topic + 3) % N_TOPICS


def toy_interactions(seed=0):
    random = np.random.default_rng(seed)
    # readers of a topic go through shuffled decks, so every item is read
    decks = [list(random.permutation(PER_TOPIC)) * 20 for _ in range(N_TOPICS)]

    def draw(topic, is_own, taken):
        if not is_own:
            left = [item for item in range(PER_TOPIC) if item not in taken]
            return random.choice(left)
        deck = decks[topic]
        place = next(k for k, item in enumerate(deck) if item not in taken)
        return deck.pop(place)

    rows = []
    for user in range(N_USERS):
        topic = user % N_TOPICS
        others = [t for t in range(N_TOPICS) if t != topic]
        plan = [(topic, 0)] * READS
        plan += [(int(t), 0) for t in random.choice(others, STRAYS)]
        plan += [(partner(topic), 1)] * LABELS
        head, tail = plan[:6], plan[6:]
        order = random.permutation(len(tail))
        taken = [set() for _ in range(N_TOPICS)]
        for time, (t, label) in enumerate(head + [tail[k] for k in order]):
            item = int(draw(t, t == topic, taken[t]))
            taken[t].add(item)
            liked = 5.0 if label or t == topic else 2.0
            rows.append(
                (
                    f"u{user:02d}",
                    f"i{t * PER_TOPIC + item:03d}",
                    1_000 + time,
                    f"topic {t} item {item}",
                    liked,
                    label,
                )
            )
    frame = pd.DataFrame(
        rows,
        columns=[
            "user_id",
            "item_id",
            "timestamp",
            "review",
            "rating",
            "label",
        ],
    )
    frame["label"] = frame["label"].astype(np.int8)
    data = Interactions("toy", frame, "a toy", has_labels=True)
    assert data.n_items == N_ITEMS
    return data


def toy_fold(kind="serendipity", seed=0, noise=0.1):
    data = toy_interactions(seed)
    random = np.random.default_rng(seed + 1)
    users = random.permutation(N_USERS)
    split = Split(
        "toy",
        np.sort(users[:24]),
        np.sort(users[24:30]),
        np.sort(users[30:]),
    )
    vectors = np.zeros((N_ITEMS + 1, 2 * N_TOPICS), dtype=np.float32)
    items = np.arange(1, N_ITEMS + 1)
    vectors[items, topic_of(items)] = 1.0
    vectors[1:] += noise * random.normal(size=vectors[1:].shape)
    vectors[1:] += 0.2  # the common direction that centering removes
    training = kind if kind == "serendipity" else "all-next"
    in_train = np.isin(data.user_index, split.train_users)
    return FoldData(
        interactions=data,
        split=split,
        kind=kind,
        raw_vectors=torch.from_numpy(unit_rows(vectors)),
        missing_items=np.zeros(0, dtype=np.int64),
        train=make_examples(data, split.train_users, training),
        valid=make_examples(data, split.valid_users, kind),
        test=make_examples(data, split.test_users, kind),
        train_items=np.unique(data.item_index[in_train]),
    )


def cases(fold, part="test"):
    """Histories, candidates (all items that a user lacks), positive."""
    data, examples = fold.interactions, getattr(fold, part)
    rows = []
    for m in range(len(examples)):
        own = data.item_index[data.rows(int(examples.users[m]))]
        others = np.setdiff1d(np.arange(1, data.n_items + 1), own)
        rows.append(np.append(others, int(examples.targets[m])))
    width = min(len(row) for row in rows)
    candidates = torch.from_numpy(np.stack([row[-width:] for row in rows]))
    return examples.histories, candidates, width - 1


def hit_ratio(model, fold, k=10):
    """HR@k on the test users; ties count by their expected share."""
    histories, candidates, column = cases(fold)
    scores = model.score(histories, candidates)
    own = scores[:, column : column + 1]
    better = (scores > own).sum(1).float()
    tied = (scores == own).sum(1).float()
    return float(((k - better) / tied).clamp(0, 1).mean())


def chance(fold, k=10):
    return k / cases(fold)[1].shape[1]


class MaxCosine:
    """The control that the toy world is built against."""

    name = "max-cosine"

    def fit(self, fold, *, generator):
        from serendifflib.baselines.sampling import item_vectors

        self.vectors = item_vectors(fold)
        return self

    def score(self, histories, candidates):
        given, wanted = self.vectors[histories], self.vectors[candidates]
        cosine = wanted @ given.transpose(1, 2)
        padding = (histories == 0).unsqueeze(1)
        return cosine.masked_fill(padding, -1.0).amax(dim=2)
