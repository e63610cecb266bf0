"""The OpenVINO encoder against sentence-transformers."""

import builtins
import importlib.util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendifflib.errors import ConfigError
from serendifflib.portrait import encoding as fast_encoder
from serendifflib.portrait.encoding import FastReviewEncoder, batches
from serendifflib.portrait.items import ReviewEncoder

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


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return ReviewEncoder(cache=folder).encode(TEXTS)


def precisions():
    if importlib.util.find_spec("openvino") is None:
        return []
    found = ["float32", "int8"]
    if FastReviewEncoder().computes_in == "bfloat16":
        found.append("bfloat16")
    return found


@needs_openvino
@pytest.mark.parametrize("precision", precisions())
def test_vectors_are_those_of_sentence_transformers(
    plain, tmp_path, precision
):
    fast = FastReviewEncoder(cache=tmp_path, precision=precision)
    found = fast.encode(TEXTS)
    assert found.dtype == np.float32 and found.shape == plain.shape
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    cosines = (found * plain).sum(axis=1)
    assert cosines.mean() > 0.99 and cosines.min() > 0.98
    if precision == "float32":
        np.testing.assert_allclose(found, plain, atol=1e-4)
    else:
        assert cosines.max() < 1 - 1e-7  # it does compute in fewer bits


@needs_openvino
def test_what_is_cached_needs_no_model(tmp_path, monkeypatch):
    given = FastReviewEncoder(cache=tmp_path).encode(TEXTS)

    def load(self):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(FastReviewEncoder, "model", property(load))
    again = FastReviewEncoder(cache=tmp_path).encode(TEXTS[::-1])
    np.testing.assert_array_equal(again[::-1], given)


@needs_openvino
def test_every_precision_has_a_cache_of_its_own(tmp_path):
    makers = [
        ReviewEncoder(cache=tmp_path),
        FastReviewEncoder(cache=tmp_path, precision="float32"),
        FastReviewEncoder(cache=tmp_path, precision="int8"),
    ]
    assert len({made.fingerprint for made in makers}) == 3


def test_an_unknown_precision():
    with pytest.raises(ConfigError, match="'int4': choose one of auto"):
        FastReviewEncoder(precision="int4")


def test_without_openvino(monkeypatch):
    plain_import = builtins.__import__

    def missing(name, *rest):
        if name == "openvino":
            raise ImportError(name)
        return plain_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigError, match=r"serendifflib\[openvino\]"):
        FastReviewEncoder().fingerprint  # noqa: B018


class Limited:
    """An OpenVINO whose processor knows no bfloat16."""

    class Core:
        def get_property(self, device, name):
            return ["FP32", "INT8"]


def test_a_processor_without_bfloat16(monkeypatch):
    monkeypatch.setattr(fast_encoder, "_openvino", lambda: Limited)
    assert FastReviewEncoder().computes_in == "int8"
    with pytest.raises(ConfigError, match="choose int8"):
        FastReviewEncoder(precision="bfloat16").fingerprint  # noqa: B018


@given(st.lists(st.integers(1, 256), max_size=200))
def test_batches_hold_every_row_once_and_few_tokens(lengths):
    lengths = np.array(lengths, dtype=np.int64)
    found = list(batches(lengths))
    rows = [row for part in found for row in part.tolist()]
    assert sorted(rows) == list(range(len(lengths)))
    for part in found:
        assert lengths[part].max() * len(part) <= fast_encoder.BATCH_TOKENS
    longest = [lengths[part].max() for part in found]
    assert longest == sorted(longest, reverse=True)
