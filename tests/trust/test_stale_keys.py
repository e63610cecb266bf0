"""What is cached or recorded is made again when a part of its way changes.

Every part on the way to candidates, to a trained model and to a record is
changed, one at a time (and in the soak two at a time): each change must lead
to a key of its own, and no change must lead to the one that is there.
"""

import dataclasses
import itertools
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from serendifflib.data.splits import user_folds
from serendifflib.evaluation.candidates import Candidates
from serendifflib.experiments import prepared, versions
from serendifflib.portrait.fold import prepare_fold
from serendifflib.portrait.portrait import PortraitSpace
from serendifflib.profiles import PROFILES


def another_rating(way):
    data = way.fold.interactions
    frame = data.frame.assign(rating=3.0)
    way.fold = dataclasses.replace(
        way.fold, interactions=dataclasses.replace(data, frame=frame)
    )


def another_title(way):
    data = way.fold.interactions
    titles = {**data.titles, data.items[0]: "Renamed"}
    way.fold = dataclasses.replace(
        way.fold, interactions=dataclasses.replace(data, titles=titles)
    )


def another_encoder(way):
    vectors = way.fold.raw_vectors.clone()
    vectors[3] = vectors[4]
    way.fold = dataclasses.replace(way.fold, raw_vectors=vectors)


def another_fold(way):
    other = way.other_fold
    names = ("split", "train", "valid", "test")
    way.fold = dataclasses.replace(
        way.fold, **{name: getattr(other, name) for name in names}
    )


def another_target(way):
    for part in ("train", "valid", "test"):
        examples = getattr(way.fold, part)
        targets = examples.targets.clone()
        targets[0] = targets[0] % 100 + 1
        changed = dataclasses.replace(examples, targets=targets)
        way.fold = dataclasses.replace(way.fold, **{part: changed})


def setting(where, **changes):
    return lambda way: getattr(way, where).update(changes)


def version(table, name):
    return lambda way: way.versions.append((table, name))


SHARED = {
    "data": another_rating,
    "encoder": another_encoder,
    "fold": another_fold,
    "targets": another_target,
    "seed": setting("draw", seed=1),
    "items": version(versions.PARTS, "items"),
    "portrait": version(versions.PARTS, "portrait"),
    **{name: version("library", name) for name in versions.LIBRARIES},
}
CHANGES = {
    "candidates": {
        **SHARED,
        "bins": setting("space", bins="interactions"),
        "isotropy": setting("space", isotropy="none"),
        "weights": setting("space", weights="recency"),
        "smoothing": setting("space", mu=2.0),
        "number": setting("draw", n_candidates=40),
        "part": setting("draw", part="valid"),
        "candidates": version(versions.PARTS, "candidates"),
    },
    "model": {
        **SHARED,
        "title": another_title,
        "width": setting("fit", width=12),
        "steps": setting("fit", steps=11),
        "preset": setting("draw", preset="corrected"),
        "training": version(versions.PARTS, "training"),
        "serendiff": version(versions.MODELS, "serendiff"),
    },
}


def candidates_file(way, folder):
    """Names of the files of candidates that are new."""
    before = set(folder.glob("candidates/*"))
    draw = way.draw
    prepared._candidates(
        way.fold,
        PortraitSpace.fit(way.fold, **way.space),
        draw["part"],
        draw["n_candidates"],
        draw["seed"],
    )
    return {path.name for path in set(folder.glob("candidates/*")) - before}


def model_folder(way, folder):
    def where(path, load):
        return path.parent

    with mock.patch.object(prepared, "_cached", where):
        found = prepared._load_or_fit(
            way.fold,
            PROFILES["smoke"],
            way.draw["preset"],
            seed=way.draw["seed"],
            progress=False,
            device="cpu",
            **way.fit,
        )
    found.mkdir(parents=True, exist_ok=True)
    return {found.name} - way.seen


@pytest.fixture
def key_of(
    tiny_data, tiny_fold, tiny_settings, word_encoder, empty_cache, monkeypatch
):
    """What a chain of changes leads to: the keys that are new."""
    other = prepare_fold(
        tiny_data, user_folds(tiny_data, 3, seed=0)[1], encoder=word_encoder
    )
    some = Candidates(torch.arange(1, 7).view(2, 3), torch.tensor([0, 2]))
    monkeypatch.setattr(prepared, "fold_candidates", lambda *_, **__: some)
    seen = set()

    def changed(kind, *changes):
        way = SimpleNamespace(
            fold=tiny_fold,
            other_fold=other,
            space={"bins": "catalogue"},
            draw={"part": "test", "n_candidates": 50, "seed": 0}
            | {"preset": "tuned"},
            fit=dict(tiny_settings),
            versions=[],
            seen=seen,
        )
        for change in changes:
            CHANGES[kind][change](way)
        with pytest.MonkeyPatch.context() as patch:
            for table, name in way.versions:
                if table == "library":
                    now = {**versions.libraries(), name: "99.0"}
                    patch.setattr(versions, "libraries", lambda now=now: now)
                else:
                    patch.setitem(table, name, table[name] + 1)
            makes = {"candidates": candidates_file, "model": model_folder}
            new = makes[kind](way, empty_cache)
        seen.update(new)
        return new

    return changed


@pytest.mark.parametrize("kind", CHANGES)
def test_every_change_of_a_part_is_another_key(kind, key_of):
    assert len(key_of(kind)) == 1
    for change in CHANGES[kind]:
        assert len(key_of(kind, change)) == 1, change
        assert not key_of(kind, change), f"{change}: made again for nothing"
    assert not key_of(kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CHANGES)
def test_two_changes_are_another_key_than_each(kind, key_of):
    known = [(), *((change,) for change in CHANGES[kind])]
    for changes in known:
        key_of(kind, *changes)
    pairs = [
        (one, other)
        for one, other in itertools.combinations(CHANGES[kind], 2)
        # the last change of the libraries hides the others
        if not {one, other} <= set(versions.LIBRARIES)
    ]
    for pair in pairs:
        assert len(key_of(kind, *pair)) == 1, pair
    print(f"{kind}: {len(known) + len(pairs)} chains, as many keys")


@pytest.mark.parametrize("model", versions.MODELS)
@pytest.mark.parametrize("part", versions.PARTS)
def test_a_record_names_every_part(model, part, monkeypatch):
    def parts():
        return versions.parts_of(model, "x", simulated=True, encoder="e" * 64)

    before = parts()
    monkeypatch.setitem(versions.PARTS, part, versions.PARTS[part] + 1)
    untrained = model == "control" and part == "training"
    assert (parts() == before) == untrained
