"""Saved models: one safetensors file in a folder, its header plain JSON.

Nothing in a saved model can run code. A damaged file, another version and
another shape are refused with a reason. One file is swapped for another by
renaming, so that a save that is killed leaves the model that was there.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from serendifflib.diffusion.checkpoints import read_state, write_state
from serendifflib.diffusion.reports import StageReport
from serendifflib.errors import CheckpointError, ConfigError
from serendifflib.model.catalogue import Catalogue
from serendifflib.model.settings import Settings
from serendifflib.portrait.portrait import PortraitSpace
from serendifflib.portrait.scores import CoOccurrence, MinMax, QuantileMap

if TYPE_CHECKING:
    from serendifflib.model.serendiff import SerenDiff

MODEL_VERSION = 4  # 4: which rows are counted, one by one
FILE = "model.safetensors"


def save_model(model: SerenDiff, folder: Path) -> None:
    """Write ``model`` to ``folder``, over what is there."""
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
        "counted": _tensor(np.concatenate(catalogue.counted)),
    }
    state = model.network.state_dict()
    tensors |= {f"network.{name}": value for name, value in state.items()}
    header = {
        "version": MODEL_VERSION,
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
    write_state(folder / FILE, header, tensors)


def load_model(model: SerenDiff, folder: Path) -> None:
    """Fill ``model`` from ``folder``."""
    path = folder / FILE
    header, tensors = read_state(path, "fit and save the model again")
    version = header.get("version") if isinstance(header, dict) else None
    if version != MODEL_VERSION:
        raise CheckpointError(
            f"{folder} was saved by version {version} of the format, this "
            f"library reads version {MODEL_VERSION}; fit and save it again"
        )
    try:
        _fill(model, header, tensors)
    except (
        LookupError, TypeError, RuntimeError, ValueError, AttributeError,
    ) as error:  # fmt: skip
        words = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{folder} does not fit this library: {words}"
        ) from error
    except ConfigError as error:
        raise CheckpointError(f"{folder}: {error}") from error


def _fill(model: SerenDiff, header: dict, tensors: dict) -> None:
    if any(
        bool(value.isnan().any())
        for value in tensors.values()
        if value.is_floating_point()
    ):
        raise ValueError("NaN among its numbers; fit and save it again")
    model.configure(Settings(**header["settings"]))
    model.seed, model.kind = header["seed"], header["kind"]
    model.reports = [StageReport.from_json(r) for r in header["reports"]]
    vectors = tensors["vectors"]
    space = PortraitSpace(
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
    lengths, items = tensors["history_lengths"], tensors["history_items"]
    counted = tensors["counted"].bool()
    if not int(lengths.sum()) == len(items) == len(counted) or bool(
        (lengths < 0).any()
    ):
        raise ValueError("its histories have other lengths than their items")
    ends = np.cumsum(lengths.numpy())[:-1]
    catalogue = Catalogue(
        **header["catalogue"],
        histories=np.split(items.numpy(), ends),
        counted=np.split(counted.numpy(), ends),
    )
    n_items = len(vectors) - 1
    if not (
        len(lengths) == len(catalogue.users)
        and n_items == len(catalogue.items) == len(catalogue.titles)
        and bool(((items >= 1) & (items <= n_items)).all())
    ):
        raise ValueError("the parts of its catalogue have other lengths")
    model.prepare(space, tensors["memberships"], catalogue)
    network = model.diffusion.new_network(model.seed)
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


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
