"""Tensors and plain values in one file: safetensors with a checksum.

Nothing in such a file can run code. It is written beside its place and then
renamed, so that at any moment there is the old file or the new one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from serendifflib.errors import CheckpointError
from serendifflib.io import content_hash, is_stream, write_bytes

CHECKPOINT_VERSION = 3

State = dict[str, Tensor]


def write_state(path: Path, header: dict[str, Any], tensors: State) -> None:
    """Write a ``header`` (JSON values) and ``tensors``, atomically."""
    tensors = {
        name: value.detach().cpu().contiguous()
        for name, value in tensors.items()
    }
    # one entry, for theirs are written in any order
    signed = {"header": header, "checksum": _checksum(header, tensors)}
    # not save_file: killed, it leaves a file of its own beside ours
    content = save(tensors, {"serendiff": json.dumps(signed)})
    write_bytes(path, content)


def read_state(path: Path, advice: str) -> tuple[dict[str, Any], State]:
    """What :func:`write_state` wrote.

    Raises:
        CheckpointError: missing or damaged; its words end with ``advice``.
    """
    try:
        if is_stream(path):
            raise OSError("it is a pipe or a device, not a file")
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            signed = json.loads(metadata["serendiff"])
            header = signed["header"]
            # copies: theirs are views of the file, which may be cut
            tensors = {k: stored.get_tensor(k).clone() for k in stored.keys()}
            damaged = signed["checksum"] != _checksum(header, tensors)
    except (
        SafetensorError, OSError, LookupError, TypeError, ValueError,
    ) as error:  # fmt: skip
        raise CheckpointError(
            f"{path} cannot be read ({error}); {advice}"
        ) from error
    if damaged:
        raise CheckpointError(
            f"{path} is damaged: its checksum is wrong; {advice}"
        )
    return header, tensors


def trained_state(network: nn.Module) -> State:
    """What training changes; a frozen language model is not."""
    frozen = {
        name  # by all its names: a language model ties input and output
        for name, p in network.named_parameters(remove_duplicate=False)
        if not p.requires_grad
    }
    state = network.state_dict()
    return {name: v for name, v in state.items() if name not in frozen}


def save_checkpoint(
    path: Path,
    run: str,
    report: dict[str, Any],
    best: State,
    network: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write the state of a training; ``run`` hashes what it depends on.

    ``best`` are the best weights so far, if any, ``average`` the mean of the
    last ones.
    """
    tensors = {f"network.{k}": v for k, v in trained_state(network).items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    tensors |= {f"best.{k}": v for k, v in best.items()}
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"optimizer.{number}.{name}"] = value
    header = {"version": CHECKPOINT_VERSION, "run": run, "report": report}
    write_state(path, header, tensors)


def load_checkpoint(
    path: Path,
    run: str,
    network: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, Any], State]:
    """Fill network, average and optimiser; return the report and the best.

    Raises:
        CheckpointError: damaged, or of another version or run.
    """
    header, tensors = read_state(path, "delete it to start again")
    if (header.get("version"), header.get("run")) != (CHECKPOINT_VERSION, run):
        raise CheckpointError(
            f"{path} belongs to another version or another run; delete it "
            "or choose another checkpoint file"
        )
    parts: dict[str, State] = {"network": {}, "average": {}, "best": {}}
    states: dict[int, State] = {}
    for name, value in tensors.items():
        part, rest = name.split(".", 1)
        if part == "optimizer":
            number, key = rest.split(".", 1)
            states.setdefault(int(number), {})[key] = value
        else:
            parts[part][rest] = value
    network.load_state_dict(parts["network"], strict=False)  # less the frozen
    average.load_state_dict(parts["average"])
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})
    device = next(network.parameters()).device
    best = {name: value.to(device) for name, value in parts["best"].items()}
    return header["report"], best


def _checksum(header: dict, tensors: State) -> str:
    parts = (
        part
        for name in sorted(tensors)
        for part in (name, tensors[name].cpu().numpy())
    )
    return content_hash(header, *parts)
