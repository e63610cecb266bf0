import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from serendifflib.diffusion.checkpoints import read_state, write_state
from serendifflib.errors import CacheError, CheckpointError
from serendifflib.model.serendiff import SerenDiff
from serendifflib.model.storage import FILE


@pytest.fixture(scope="module")
def saved(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    tiny_model.save(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(saved, tmp_path / "model")


def load(folder):
    return SerenDiff.load(folder, device="cpu", progress=False)


def resign(folder, change):
    """Edit the header and make the checksum right again."""
    header, tensors = read_state(folder / FILE, "")
    change(header)
    write_state(folder / FILE, header, tensors)


def retensor(folder, change):
    """Edit the tensors and make the checksum right again."""
    header, tensors = read_state(folder / FILE, "")
    change(tensors)
    write_state(folder / FILE, header, tensors)


def test_a_loaded_model_is_the_same_model(saved, tiny_model, tiny_fold):
    model = load(saved)
    histories = tiny_fold.test.histories
    candidates = torch.arange(1, 41).repeat(len(histories), 1)
    assert torch.equal(
        model.score(histories, candidates),
        tiny_model.score(histories, candidates),
    )
    user = tiny_model.catalogue.users[3]
    one, two = model.recommend(user), tiny_model.recommend(user)
    assert one.equals(two)
    item = one["item"][0]
    assert (
        model.explain(user, item).text == tiny_model.explain(user, item).text
    )
    assert model.settings == tiny_model.settings
    assert model.reports == tiny_model.reports
    assert (model.seed, model.kind, model.name) == (
        tiny_model.seed,
        tiny_model.kind,
        tiny_model.name,
    )
    np.testing.assert_array_equal(
        np.concatenate(model.catalogue.counted),
        np.concatenate(tiny_model.catalogue.counted),
    )
    assert not model.network.training


def test_a_saved_model_is_one_file_of_tensors_and_json(saved):
    assert os.listdir(saved) == [FILE]
    load_file(saved / FILE)
    with safe_open(saved / FILE, framework="pt") as stored:
        header = json.loads(stored.metadata()["serendiff"])["header"]
    assert header["settings"]["preset"] == "tuned"


def test_saving_again_writes_the_same_bytes(saved, tiny_model, tmp_path):
    tiny_model.save(tmp_path / "again")
    load(saved).save(tmp_path / "third")
    content = (saved / FILE).read_bytes()
    assert (tmp_path / "again" / FILE).read_bytes() == content
    assert (tmp_path / "third" / FILE).read_bytes() == content


def test_wild_titles_survive(tiny_model, tmp_path):
    wild = "$x$ </script>\n\0\u2028 🐙 \\\" '"
    titles = [wild, *tiny_model.catalogue.titles[1:]]
    model = SerenDiff.__new__(SerenDiff)
    catalogue = replace(tiny_model.catalogue, titles=titles)
    model.__dict__.update(tiny_model.__dict__, catalogue=catalogue)
    model.save(tmp_path / "model")
    assert load(tmp_path / "model").catalogue.titles == titles


def test_a_folder_that_cannot_be_written_is_one_clear_line(
    tiny_model, tmp_path
):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match="cannot write"):
        tiny_model.save(tmp_path / "file" / "model")


# ------------------------------------------------------------------ damage


def same_content(one, two):
    """Whether both files hold the same header and the same tensors."""
    try:
        (first, mine), (second, yours) = (
            read_state(path, "") for path in (one, two)
        )
    except CheckpointError:
        return False
    return first == second and all(
        torch.equal(value, yours[name]) for name, value in mine.items()
    )


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_a_flipped_bit_is_refused_wherever_it_is(saved, copy, data):
    path = copy / FILE
    good = path.read_bytes()
    bad = bytearray(good)
    # half of the cases in the header of the file, where structure is
    size = data.draw(st.sampled_from([4_000, len(bad)]))
    bad[data.draw(st.integers(0, size - 1))] ^= 1 << data.draw(
        st.integers(0, 7)
    )
    path.write_bytes(bad)
    try:
        if same_content(saved / FILE, path):
            return  # the last digit of a number, which is the same number
        with pytest.raises(CheckpointError) as caught:
            load(copy)
        assert "\n" not in str(caught.value)
        assert str(copy) in str(caught.value)
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize("size", [0, 1, 100, -2])
def test_a_cut_file_is_refused(copy, size):
    path = copy / FILE
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError):
        load(copy)


def test_no_model_at_all(copy, tmp_path):
    (copy / FILE).unlink()
    for folder in (copy, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match="cannot be read.*save the"):
            load(folder)


@pytest.mark.parametrize(
    "signed",
    [None, "", "{}", '{"header": {}}', '{"checksum": 1, "header": {}}', "[]"],
)
def test_a_file_without_its_checksum_is_refused(copy, signed):
    tensors = load_file(copy / FILE)
    metadata = None if signed is None else {"serendiff": signed}
    save_file(tensors, copy / FILE, metadata)
    with pytest.raises(CheckpointError, match="fit and save the model again"):
        load(copy)


def test_a_folder_of_nobody_s_home(tmp_path, monkeypatch, tiny_model):
    """As in a shell, the name stays as it is."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="~nobody-here"):
        load("~nobody-here/model")
    monkeypatch.setenv("HOME", str(tmp_path))
    tiny_model.save("~/model")
    assert load("~/model").seed == tiny_model.seed


@pytest.mark.parametrize("header", [[], None, 3, "x", {}])
def test_a_header_that_is_none_is_refused(copy, header):
    write_state(copy / FILE, header, {"x": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="version None"):
        load(copy)


# -------------------------------------------------- another version, shape


def test_another_version_is_refused_with_both_numbers(copy):
    resign(copy, lambda header: header.update(version=99))
    with pytest.raises(CheckpointError, match="version 99 .* reads version 4"):
        load(copy)


def narrower_vectors(tensors):
    tensors["vectors"] = tensors["vectors"][:, :-1].contiguous()


def one_prototype_less(tensors):
    fewer = tensors["memberships"][:, :-1]
    tensors["memberships"] = fewer.contiguous()


def no_memberships(tensors):
    del tensors["memberships"]


def one_weight_less(tensors):
    tensors["network.out.bias"] = tensors["network.out.bias"][:-1].clone()


def no_weight(tensors):
    del tensors["network.out.bias"]


def strange_weight(tensors):
    tensors["network.evil"] = torch.zeros(1)


def no_history(tensors):
    del tensors["history_items"]


def lengths_of_others(tensors):
    tensors["history_lengths"] = tensors["history_lengths"] + 1


def an_item_too_many(tensors):
    tensors["history_items"] = tensors["history_items"] + 1000


def nan_weight(tensors):
    tensors["network.out.bias"] = tensors["network.out.bias"] * float("nan")


def matrix_beyond_the_items(tensors):
    tensors["matrix_indices"] = tensors["matrix_indices"] + 1000


@pytest.mark.parametrize(
    "change",
    [
        narrower_vectors,
        one_prototype_less,
        no_memberships,
        one_weight_less,
        no_weight,
        strange_weight,
        no_history,
        lengths_of_others,
        an_item_too_many,
        nan_weight,
        matrix_beyond_the_items,
    ],
)
def test_another_shape_is_refused(copy, change):
    retensor(copy, change)
    with pytest.raises(CheckpointError, match="does not fit") as caught:
        load(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["settings"].update(width=16),
        lambda header: header["settings"].update(condition="concat"),
        lambda header: header["settings"].update(predict="eps"),
        lambda header: header["settings"].update(surprise=1),
        lambda header: header.pop("settings"),
        lambda header: header.pop("catalogue"),
        lambda header: header.update(reports=[{"lossy": 1}]),
        lambda header: header.update(settings=[1, 2]),
    ],
)
def test_settings_that_do_not_fit_are_refused(copy, change):
    resign(copy, change)
    with pytest.raises(CheckpointError) as caught:
        load(copy)
    assert "\n" not in str(caught.value)


def test_nothing_else_in_the_folder_is_run(copy):
    """Python and pickles beside a model are left alone."""
    (copy / "__init__.py").write_text("raise SystemExit('run')")
    (copy / "model.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    load(copy)
