"""Saved models: one safetensors file and one JSON file in a folder.

Nothing in a saved model can run code. A damaged file, another version and
another shape are refused with a reason.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from serendifflib.diffusion.training import TrainingReport
from serendifflib.errors import CheckpointError, ConfigError
from serendifflib.io import (
    atomic_path,
    content_hash,
    read_json,
    sha256_file,
    write_json,
)
from serendifflib.model.catalogue import Catalogue
from serendifflib.model.settings import Settings
from serendifflib.portrait.portrait import PortraitSpace
from serendifflib.portrait.quantiles import MinMax, QuantileMap
from serendifflib.portrait.scores import CoOccurrence

if TYPE_CHECKING:
    from serendifflib.model.serendiff import SerenDiff

MODEL_VERSION = 2  # 2: memberships
TENSORS, HEADER = "model.safetensors", "model.json"


def save_model(model: SerenDiff, folder: Path) -> None:
    """Write ``model`` to ``folder``; the header comes last.

    The header holds the hash of the tensors and its own, so that damage and
    a save that was killed between the two files are noticed at loading.
    """
    space, catalogue = model.space, model.catalogue
    lengths = np.array([len(h) for h in catalogue.histories])
    tensors = {
        "vectors": space.vectors,
        "memberships": model.memberships,
        "expectedness_reference": _tensor(space.expectedness_map.reference),
        "relevance_reference": _tensor(space.relevance_map.reference),
        "matrix_indptr": _tensor(space.co_occurrence.matrix.indptr),
        "matrix_indices": _tensor(space.co_occurrence.matrix.indices),
        "history_lengths": _tensor(lengths),
        "history_items": _tensor(np.concatenate(catalogue.histories)),
        "counted": _tensor(catalogue.counted),
    }
    for name, value in model.network.state_dict().items():
        tensors[f"network.{name}"] = value
    with atomic_path(folder / TENSORS) as path:
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
            path,
        )
    header = {
        "version": MODEL_VERSION,
        "tensors_sha256": sha256_file(folder / TENSORS),
        "settings": model.settings.as_dict(),
        "seed": model.seed,
        "kind": model.kind,
        "bins": space.bins,
        "weights": space.weights,
        "mu": space.co_occurrence.mu,
        "relevance_range": asdict(space.relevance_range),
        "reports": [asdict(report) for report in model.reports],
        "catalogue": {
            "name": catalogue.name,
            "source": catalogue.source,
            "users": catalogue.users,
            "items": catalogue.items,
            "titles": catalogue.titles,
        },
    }
    checksum = content_hash(header)
    write_json(folder / HEADER, {**header, "checksum": checksum})


def load_model(model: SerenDiff, folder: Path) -> None:
    """Fill ``model`` from ``folder``.

    Raises:
        CheckpointError: missing, damaged, another version, another shape.
    """
    try:
        header = read_json(folder / HEADER)
        version, checksum = header["version"], header.pop("checksum", None)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"{folder} holds no saved model that can be read ({error})"
        ) from error
    if version != MODEL_VERSION:
        raise CheckpointError(
            f"{folder} was saved by version {version} of the format, this "
            f"library reads version {MODEL_VERSION}; fit and save it again"
        )
    if checksum != content_hash(header):
        raise CheckpointError(
            f"{folder / HEADER} is damaged: its checksum is wrong; fit and "
            "save the model again"
        )
    try:
        damaged = sha256_file(folder / TENSORS) != header["tensors_sha256"]
        tensors = {} if damaged else load_file(folder / TENSORS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / TENSORS}: {error}") from error
    if damaged:
        raise CheckpointError(
            f"{folder / TENSORS} is damaged: its SHA-256 is not the one in "
            f"{HEADER}; fit and save the model again"
        )
    try:
        _fill(model, header, tensors)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{folder} does not fit this library: {str(error).splitlines()[0]}"
        ) from error
    except ConfigError as error:
        raise CheckpointError(f"{folder}: {error}") from error


def _fill(model: SerenDiff, header: dict, tensors: dict) -> None:
    model._prepare(Settings(**header["settings"]))
    model.seed, model.kind = header["seed"], header["kind"]
    model.reports = [TrainingReport.from_json(r) for r in header["reports"]]
    vectors = tensors["vectors"]
    model.space = PortraitSpace(
        co_occurrence=_co_occurrence(tensors, len(vectors), header["mu"]),
        vectors=vectors,
        bins=header["bins"],
        weights=header["weights"],
        relevance_range=MinMax(**header["relevance_range"]),
        expectedness_map=QuantileMap(
            tensors["expectedness_reference"].numpy()
        ),
        relevance_map=QuantileMap(tensors["relevance_reference"].numpy()),
    )
    ends = np.cumsum(tensors["history_lengths"].numpy())[:-1]
    model.catalogue = Catalogue(
        **header["catalogue"],
        histories=np.split(tensors["history_items"].numpy(), ends),
        counted=tensors["counted"].numpy(),
    )
    model.take_memberships(tensors["memberships"])
    network = model._new_network(model.points.shape[1])
    network.load_state_dict(
        {
            name.removeprefix("network."): value
            for name, value in tensors.items()
            if name.startswith("network.")
        }
    )
    model.network = network.to(model.device).eval()


def _co_occurrence(tensors: dict, width: int, mu: float) -> CoOccurrence:
    indptr = tensors["matrix_indptr"].numpy()
    indices = tensors["matrix_indices"].numpy()
    matrix = scipy.sparse.csr_array(
        (np.ones(len(indices)), indices, indptr),
        shape=(len(indptr) - 1, width),
    )
    matrix.check_format()
    return CoOccurrence.from_matrix(matrix, mu)


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
