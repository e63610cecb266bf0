import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from serendifflib.errors import CacheError, CheckpointError
from serendifflib.io import content_hash, sha256_file
from serendifflib.model import storage
from serendifflib.model.serendiff import SerenDiff


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
    """Edit the header and make its checksum right again."""
    path = folder / "model.json"
    header = json.loads(path.read_text())
    del header["checksum"]
    change(header)
    header["tensors_sha256"] = sha256_file(folder / "model.safetensors")
    header["checksum"] = content_hash(header)
    path.write_text(json.dumps(header))


def retensor(folder, change):
    """Edit the tensors and make all checksums right again."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    resign(folder, lambda header: None)


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
        model.catalogue.counted, tiny_model.catalogue.counted
    )
    assert not model.network.training


def test_a_saved_model_is_safetensors_and_json(saved):
    assert sorted(os.listdir(saved)) == ["model.json", "model.safetensors"]
    json.loads((saved / "model.json").read_text())
    load_file(saved / "model.safetensors")


def test_saving_again_writes_the_same_bytes(saved, tiny_model, tmp_path):
    tiny_model.save(tmp_path / "again")
    load(saved).save(tmp_path / "third")
    for name in ("model.json", "model.safetensors"):
        content = (saved / name).read_bytes()
        assert (tmp_path / "again" / name).read_bytes() == content
        assert (tmp_path / "third" / name).read_bytes() == content


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


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_a_flipped_bit_is_refused_wherever_it_is(copy, data):
    name = data.draw(st.sampled_from(["model.json", "model.safetensors"]))
    path = copy / name
    good = path.read_bytes()
    bad = bytearray(good)
    # half of the cases in the header of the file, where structure is
    size = data.draw(st.sampled_from([400, len(bad)]))
    bad[data.draw(st.integers(0, size - 1))] ^= 1 << data.draw(
        st.integers(0, 7)
    )
    path.write_bytes(bad)
    try:
        if name == "model.json" and same_json(good, bytes(bad)):
            return  # another blank between two values
        with pytest.raises(CheckpointError) as caught:
            load(copy)
        assert "\n" not in str(caught.value)
        assert str(copy) in str(caught.value)
    finally:
        path.write_bytes(good)


def same_json(one, two):
    try:
        return json.loads(one) == json.loads(two)
    except ValueError:
        return False


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
@pytest.mark.parametrize("size", [0, 1, 100, -2])
def test_a_cut_file_is_refused(copy, name, size):
    path = copy / name
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError):
        load(copy)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_refused(copy, name):
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match="model"):
        load(copy)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(CheckpointError, match="no saved model"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["[]", "null", "3", '"x"', "{}", "{"])
def test_a_header_that_is_none_is_refused(copy, content):
    (copy / "model.json").write_text(content)
    with pytest.raises(CheckpointError, match="no saved model"):
        load(copy)


def test_a_save_that_was_killed_between_the_files_is_noticed(
    copy, tiny_model, monkeypatch
):
    """New tensors beside the old header."""

    def killed(*arguments):
        raise KeyboardInterrupt

    model = SerenDiff.__new__(SerenDiff)
    model.__dict__.update(tiny_model.__dict__)
    model.space = replace(tiny_model.space, vectors=-tiny_model.space.vectors)
    monkeypatch.setattr(storage, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        model.save(copy)
    with pytest.raises(CheckpointError, match="is damaged"):
        load(copy)
    assert sorted(os.listdir(copy)) == ["model.json", "model.safetensors"]


# -------------------------------------------------- another version, shape


def test_another_version_is_refused_with_both_numbers(copy):
    resign(copy, lambda header: header.update(version=99))
    with pytest.raises(CheckpointError, match="version 99 .* reads version 2"):
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
