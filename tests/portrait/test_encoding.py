"""What decides a vector names it; OpenVINO against sentence-transformers."""

import importlib.util
import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendifflib.errors import ModelError
from serendifflib.portrait import encoding
from serendifflib.portrait.encoding import (
    Bfloat16Encoder,
    CompiledEncoder,
    ReviewEncoder,
    batches,
)

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None,
    reason="the extra openvino is not installed",
)
TEXTS = [
    "A quiet book about the sea.",
    "",
    "I laughed, I cried, and I told everyone. " * 40,  # more than 256 tokens
    "Un livre étonnant!",
    "Space pirates? Not for me; but the cook was a delight. " * 6,
]


# ------------------------------------------------------------- fingerprint


@pytest.fixture
def model_folder(tmp_path):
    """A copy of the packaged model with other weights of two bytes."""
    folder = tmp_path / "model"
    weights = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(ReviewEncoder().model_path, folder, ignore=weights)
    (folder / "model.safetensors").write_bytes(b"ab")
    return folder


def fingerprint(folder):
    made = ReviewEncoder()
    made.__dict__["model_path"] = folder
    return made.fingerprint


@pytest.mark.parametrize(
    ("file", "setting", "value"),
    [
        ("1_Pooling/config.json", "pooling_mode_mean_tokens", False),
        ("sentence_bert_config.json", "max_seq_length", 128),
        ("tokenizer_config.json", "do_lower_case", False),
        ("config.json", "layer_norm_eps", 1.0),
    ],
)
def test_whatever_changes_vectors_changes_the_cache(
    model_folder, file, setting, value
):
    before = fingerprint(model_folder)
    assert fingerprint(model_folder) == before
    path = model_folder / file
    settings = json.loads(path.read_text())
    assert settings.get(setting) != value
    path.write_text(json.dumps(settings | {setting: value}))
    assert fingerprint(model_folder) != before


def test_other_weights_or_no_normalisation_change_the_cache(model_folder):
    before = fingerprint(model_folder)
    modules = model_folder / "modules.json"
    steps = json.loads(modules.read_text())
    modules.write_text(json.dumps(steps[:2]))  # without Normalize
    without = fingerprint(model_folder)
    (model_folder / "model.safetensors").write_bytes(b"ba")
    assert len({before, without, fingerprint(model_folder)}) == 3


# ---------------------------------------------------------------- OpenVINO


@needs_openvino
def test_vectors_are_those_of_sentence_transformers(tmp_path):
    plain = ReviewEncoder(cache=tmp_path)
    wanted, path = plain.encode(TEXTS), str(plain.model_path)
    found = CompiledEncoder(path, "f32").encode(TEXTS)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    rough = CompiledEncoder(path, "bf16").encode(TEXTS)
    assert rough.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rough, axis=1), 1, atol=1e-5)
    assert (rough * wanted).sum(axis=1).min() > encoding.CLOSE


def test_vectors_that_are_not_close_are_refused(monkeypatch):
    class Far:
        def __init__(self, path, precision):
            assert precision == "bf16"

        def encode(self, texts):
            return np.eye(384, dtype=np.float32)[: len(texts)]

    monkeypatch.setattr(encoding, "CompiledEncoder", Far)
    with pytest.raises(ModelError, match=r"give ReviewEncoder\(\)"):
        Bfloat16Encoder().model  # noqa: B018


def test_bfloat16_has_a_cache_of_its_own():
    assert Bfloat16Encoder().fingerprint != ReviewEncoder().fingerprint


@pytest.mark.parametrize(
    ("able", "cuda", "chosen"),
    [
        (["FP32", "BF16"], False, Bfloat16Encoder),
        (["FP32", "BF16"], True, ReviewEncoder),
        (["FP32", "INT8"], False, ReviewEncoder),
        (None, False, ReviewEncoder),  # not installed
    ],
)
def test_the_machine_chooses_the_encoder(monkeypatch, able, cuda, chosen):
    core = SimpleNamespace(get_property=lambda device, name: able)
    monkeypatch.setitem(
        sys.modules, "openvino", SimpleNamespace(Core=lambda: core)
    )
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: able and core
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    found = encoding.default_encoder()
    assert type(found) is chosen and found.progress


@given(st.lists(st.integers(1, 256), max_size=200))
def test_batches_hold_every_row_once_and_few_tokens(lengths):
    lengths = np.array(lengths, dtype=np.int64)
    found = list(batches(lengths))
    rows = [row for part in found for row in part.tolist()]
    assert sorted(rows) == list(range(len(lengths)))
    for part in found:
        assert lengths[part].max() * len(part) <= encoding.BATCH_TOKENS
    longest = [lengths[part].max() for part in found]
    assert longest == sorted(longest, reverse=True)
