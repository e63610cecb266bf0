"""The review encoder on OpenVINO: several times faster on a processor.

An option (``pip install "serendifflib[openvino]"``): give
``FastReviewEncoder()`` wherever an encoder is asked for. Its vectors are not
quite those of sentence-transformers, so they have a cache of their own.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from serendifflib.errors import ConfigError
from serendifflib.io import content_hash
from serendifflib.portrait.items import ReviewEncoder, unit_rows

PRECISIONS = ("auto", "float32", "bfloat16", "int8")
MAX_TOKENS = 256  # all-MiniLM-L6-v2 cuts here
BATCH_TOKENS = 4096  # tokens of a forward pass, padding included


@dataclass
class FastReviewEncoder(ReviewEncoder):
    """SentenceBERT MiniLM, compiled for the processor at hand.

    Attributes:
        cache, batch_size, progress: as in
            ``ReviewEncoder``; batches are cut by
            tokens, ``batch_size`` is not used.
        precision: ``float32``; ``bfloat16``, for processors that compute in
            it; ``int8``, weights and activations of the linear layers in 8
            bits; ``auto`` is bfloat16 where the processor has it, else int8.
        threads: 0 takes those of torch.
    """

    precision: str = "auto"
    threads: int = 0

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"unknown precision {self.precision!r}: choose one of "
                f"{', '.join(PRECISIONS)}"
            )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights and of how they compute."""
        return content_hash("openvino", super().fingerprint, self.computes_in)

    @cached_property
    def computes_in(self) -> str:
        """The precision in force.

        Raises:
            ConfigError: OpenVINO is not installed, or the processor does not
                compute in bfloat16.
        """
        has = (
            _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        )
        if self.precision == "auto":
            return "bfloat16" if "BF16" in has else "int8"
        if self.precision == "bfloat16" and "BF16" not in has:
            raise ConfigError(
                "this processor does not compute in bfloat16: choose int8"
            )
        return self.precision

    @cached_property
    def model(self) -> CompiledEncoder:
        """Compiled on first use; what is cached needs none of it."""
        return CompiledEncoder(
            str(self.model_path),
            self.computes_in,
            self.threads or torch.get_num_threads(),
        )


class CompiledEncoder:
    """Takes the place of the sentence-transformers model.

    Args:
        path: folder of the sentence encoder.
        precision: ``int8``, ``bfloat16`` or ``float32``.
        threads: of OpenVINO.
    """

    def __init__(self, path: str, precision: str, threads: int):
        import transformers

        openvino = _openvino()
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
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        }
        if precision == "bfloat16":
            options["INFERENCE_PRECISION_HINT"] = "bf16"
        if precision == "int8":
            _quantise(graph)
            options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "128"
        self.run = openvino.Core().compile_model(graph, "CPU", options)

    def encode(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = 0,
        normalize_embeddings: bool = True,
        show_progress_bar: bool = False,
    ) -> np.ndarray:
        """Mean vectors of the tokens of each text, float32, [K, 384].

        The arguments are those of sentence-transformers; batches are cut by
        length and no bar is shown.
        """
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
        return unit_rows(vectors) if normalize_embeddings else vectors


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
    """Rows grouped by length, longest first; little is padded.

    Args:
        lengths: tokens of each text, [K], at least 1.

    Yields:
        numbers of rows; a batch holds at most :data:`BATCH_TOKENS` tokens,
        or one text.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        count = max(1, BATCH_TOKENS // int(lengths[order[start]]))
        yield order[start : start + count]
        start += count


def _quantise(graph) -> None:
    """Weights of the linear layers in 8 bits, one scale per output.

    The runtime then quantises the activations too, in groups of 128.
    """
    from openvino import opset13

    for node in graph.get_ordered_ops():
        if node.get_type_name() != "MatMul":
            continue
        weights = node.input_value(1).get_node()
        if weights.get_type_name() != "Constant" or len(weights.shape) != 2:
            continue
        over = 1 if node.get_attributes()["transpose_b"] else 0
        values = weights.data
        scale = np.abs(values).max(axis=over, keepdims=True) / 127.0
        scale = np.maximum(scale, 1e-12).astype(np.float32)
        rounded = opset13.constant(np.round(values / scale).astype(np.int8))
        restored = opset13.multiply(
            opset13.convert(rounded, "f32"), opset13.constant(scale)
        )
        node.input(1).replace_source_output(restored.output(0))


def _openvino():
    try:
        import openvino
    except ImportError as error:
        raise ConfigError(
            "OpenVINO is not installed: pip install 'serendifflib[openvino]', "
            "or use serendifflib.portrait.items.ReviewEncoder"
        ) from error
    return openvino
