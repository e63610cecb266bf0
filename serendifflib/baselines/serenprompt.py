"""SerenPrompt-style (after Fu & Niu, ICTIR 2024): ask a language model.

Only the abstract could be read: prompts are discrete (words), continuous
(trained virtual tokens) or hybrid, direct (one question) or indirect
(sub-questions); hybrid and indirect was best. Wording and language model
are ours. Answers are read from logits, never from generated text. A language
model is too slow for a thousand candidates, so it ranks the first ``top`` of
a first stage, which caps HR@10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Generator, Tensor, nn

from serendifflib.baselines.language import LanguageModel
from serendifflib.baselines.layers import first_against_rest
from serendifflib.baselines.sampling import draw_unseen, fill_up, own_items
from serendifflib.baselines.serenenhance import SerenEnhance
from serendifflib.baselines.trainer import Stage, TorchRival
from serendifflib.diffusion.sampling import user_seed
from serendifflib.errors import ConfigError, check_choice
from serendifflib.portrait.fold import FoldData, allowed_reviews
from serendifflib.recommender import Recommender

KINDS = ("discrete", "continuous", "hybrid")
STYLES = ("direct", "indirect")
QUESTIONS = {
    "direct": ("Would it be a pleasant surprise for this reader?",),
    "indirect": (
        "Would this reader be surprised to come across it?",
        "Does it suit the taste of this reader?",
    ),
}
OPENING = "A reader had these titles, oldest first:"
OFFER = "\nNew title:"
ANSWER = "Answer yes or no:"
WORDS = 12  # of a title that are used
TOKENS = 384  # of a prompt, at most
VIRTUAL = 10  # virtual tokens per slot
NEGATIVES = 4  # per positive
SLOW = 50.0  # how many times slower a tuned language model learns
FLOOR = 1_000.0  # below every answer: scores of items that were not asked


class PromptNetwork(nn.Module):
    """Virtual tokens around a language model that stays as it is."""

    def __init__(
        self, language: LanguageModel, questions: int, kind: str, tuned: bool
    ):
        super().__init__()
        self.language = language.model
        self.tuned = tuned
        self.language.requires_grad_(tuned)
        table = language.model.get_input_embeddings().weight.detach()
        slots = {} if kind == "discrete" else {"user": 0, "item": 0}
        if kind == "continuous":
            slots |= {f"ask{number}": 0 for number in range(questions)}
        self.slots = nn.ParameterDict(
            {
                name: table[torch.randint(len(table), (VIRTUAL,))].clone()
                for name in slots
            }
        )
        # z = w1 z1 + w2 z2 + b, which starts as the plain sum
        self.weights = nn.Parameter(torch.ones(questions))
        self.shift = nn.Parameter(torch.zeros(()))
        if kind == "discrete" and not tuned:
            self.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Training mode; a frozen language model keeps dropping nothing."""
        super().train(mode)
        self.language.train(mode and self.tuned)
        return self


@dataclass(eq=False, kw_only=True)
class SerenPrompt(TorchRival):
    """SerenPrompt-style re-ranking of a first stage.

    Attributes:
        language: a :class:`LanguageModel`, the path of one, ``"packaged"``
            (the ``llm`` extra) or ``"tiny"`` (random weights).
        kind: ``discrete`` (not trained), ``continuous`` or ``hybrid``.
        style: ``direct`` or ``indirect``.
        tune_language: train the language model too (at a fiftieth of the
            learning rate); else only the virtual tokens.
        first_stage: fitted on the same fold; None is SerenEnhance under
            the same budget.
        top: candidates that the language model ranks.
        share: share of users it is asked about, chosen by a hash of the
            history; the others keep the first stage's order.
        prompt_steps, prompt_batch: training of the virtual tokens.
    """

    name: str = "SerenPrompt-style"
    language: LanguageModel | str | Path = "packaged"
    kind: str = "hybrid"
    style: str = "indirect"
    tune_language: bool = False
    first_stage: Recommender | None = None
    top: int = 100
    share: float = 1.0
    prompt_steps: int = 200
    prompt_batch: int = 8
    max_history: int = 20

    def __post_init__(self):
        check_choice("kind", self.kind, KINDS, "SerenPrompt-style")
        check_choice("style", self.style, STYLES, "SerenPrompt-style")
        if self.top < 1 or not 0 <= self.share <= 1:
            raise ConfigError(
                "SerenPrompt-style: top must be at least 1 and share "
                f"between 0 and 1, got {self.top} and {self.share}"
            )

    def fit(self, fold: FoldData, *, generator: Generator) -> Self:
        """Fit the first stage, then the virtual tokens."""
        self.texts = item_texts(fold)
        if isinstance(self.language, LanguageModel):
            self.reader = self.language
        elif self.language == "packaged":
            self.reader = LanguageModel.packaged()
        elif self.language == "tiny":
            words = [OPENING, OFFER, ANSWER, *sum(QUESTIONS.values(), ())]
            self.reader = LanguageModel.tiny([*self.texts, *words])
            self.name = "SerenPrompt-style (tiny random LM)"
        else:
            self.reader = LanguageModel.load(self.language)
        self.before: dict[int, Tensor] = {}
        self.pieces: dict[int, list[int]] = {}
        self.ranker = self.first_stage or SerenEnhance(
            budget=self.budget, device=self.device
        )
        self.ranker.fit(fold, generator=generator)
        return super().fit(fold, generator=generator)

    def _build(self, fold: FoldData, vectors: Tensor) -> nn.Module:
        questions = len(QUESTIONS[self.style])
        return PromptNetwork(
            self.reader, questions, self.kind, self.tune_language
        )

    def stages(self, fold: FoldData, generator: Generator) -> list[Stage]:
        """One target against four items that are none, by their answers.

        Negatives are unlabelled items of the same user, else random ones.
        """
        if self.kind == "discrete" and not self.tune_language:
            return []
        own = own_items(fold, fold.train)
        unlabelled = own_items(fold, fold.train, unlabelled=True)
        pool = torch.from_numpy(fold.catalogue)

        def loss(index: Tensor) -> Tensor:
            unread = draw_unseen(own[index], NEGATIVES, pool, generator)
            negatives = fill_up(unlabelled[index], unread, generator)
            targets = fold.train.targets[index].unsqueeze(1)
            scores = torch.stack(
                [
                    self._combined(self._ask(history, items))
                    for history, items in zip(
                        fold.train.histories[index][:, -self.max_history :],
                        torch.cat([targets, negatives], dim=1),
                        strict=True,
                    )
                ]
            )
            return first_against_rest(scores)

        rate = self.lr / SLOW if self.tune_language else self.lr
        return [
            Stage(
                fold.kind,
                len(fold.train),
                loss,
                self.prompt_steps,
                rate,
                self.prompt_batch,  # each case is ten prompts
            )
        ]

    def _validate(self, fold: FoldData, kind: str) -> None:
        """No early stopping: one look would cost more than the training."""

    def _title(self, item: int) -> list[int]:
        """Tokens of an item's text, with a blank before."""
        if item not in self.pieces:
            self.pieces[item] = self.reader.tokens(" " + self.texts[item])
        return self.pieces[item]

    def _beginning(self, history: Sequence[int], room: int) -> Tensor:
        """Input vectors of the prompt up to the candidate, [n, h].

        With too little room the oldest titles go, never the question.
        """
        read = self.reader
        opening = [] if self.kind == "continuous" else read.tokens(OPENING)
        room -= len(opening)
        kept: list[int] = []
        for item in reversed(history):
            title = self._title(item) + read.tokens(";")
            if len(kept) + len(title) > room:
                break
            kept = title + kept
        parts = [read.embed(opening + kept)]
        if "user" in self.network.slots:
            parts.insert(0, self.network.slots["user"])
        return torch.cat(parts)

    def _ending(self, item: int, number: int) -> Tensor:
        """Input vectors from the candidate to the answer slot, [n, h]."""
        read, slots = self.reader, self.network.slots
        title = self._title(item)
        if self.kind == "continuous":
            asked = slots[f"ask{number}"]
            return torch.cat([slots["item"], read.embed(title), asked])
        question = f"\n{QUESTIONS[self.style][number]} {ANSWER}"
        words = read.tokens(OFFER) + title + read.tokens(question)
        ending = read.embed(words)
        if self.kind == "hybrid":
            ending = torch.cat([slots["item"], ending])
        return ending

    def _ask(self, history: Tensor, items: Tensor) -> Tensor:
        """Z of each question and item, [Q, K], for one history [n]."""
        questions = len(QUESTIONS[self.style])
        endings = [
            self._ending(int(item), number)
            for number in range(questions)
            for item in items
        ]
        room = TOKENS - VIRTUAL - max(len(ending) for ending in endings)
        titles = [int(item) for item in history if int(item)]
        answers = self.reader.ask(self._beginning(titles, room), endings)
        return answers.unflatten(0, (questions, -1))

    def _combined(self, answers: Tensor) -> Tensor:
        """One score from the answers z [Q, K] to all questions, [K]."""
        weighted = self.network.weights.unsqueeze(1) * answers
        return weighted.sum(0) + self.network.shift

    def _bias(self, items: Tensor) -> Tensor:
        """Z of items for an empty history, [Q, K]; asked once per item.

        Without it a language model's love of yes would count.
        """
        missing = [k for k in items.tolist() if k not in self.before]
        if missing:
            nothing = torch.zeros(1, dtype=torch.long)
            asked = self._ask(nothing, torch.tensor(missing))
            self.before |= dict(zip(missing, asked.T.cpu(), strict=True))
        known = [self.before[k] for k in items.tolist()]
        return torch.stack(known, dim=1).to(self.place)

    def score_batch(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """Answers for the first stage's top, its order below them."""
        histories, candidates = histories.cpu(), candidates.cpu()
        first = self.ranker.score(histories, candidates).double()
        # ties by item number, so that the candidates' order does not count;
        # rounded, so that a sum's last bits do not count either
        size = first.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
        first = (first / size).round(decimals=5)
        order = candidates.argsort(dim=1)
        first = first.gather(1, order)
        best = first.argsort(dim=1, descending=True, stable=True)
        order = order.gather(1, best)
        rank = order.argsort(dim=1)
        scores = -FLOOR - 1.0 - rank.float()
        top = min(self.top, candidates.shape[1])
        for row, history in enumerate(histories):
            if user_seed(history) % 10_000 >= 10_000 * self.share:
                continue
            places = order[row, :top]
            items = candidates[row, places]
            answers = self._ask(history, items) - self._bias(items)
            answer = self._combined(answers).clamp(-FLOOR, FLOOR)
            scores[row, places] = answer.float().cpu()
        return scores


def item_texts(fold: FoldData) -> list[str]:
    """What a prompt calls each item: its title, else a review's beginning.

    Only reviews that may be in the item's vector are used: never a labelled
    one, never a held-out one. N + 1 texts of at most 12 words; 0 is empty.
    """
    data = fold.interactions
    held_out = np.concatenate([fold.valid.rows, fold.test.rows])
    allowed = np.flatnonzero(allowed_reviews(data, held_out, "unlabelled"))
    reviews = data.frame["review"].to_numpy(dtype=object)
    texts = [""] * (data.n_items + 1)
    # backwards: the first allowed review of an item stays
    for row in allowed[::-1]:
        texts[data.item_index[row]] = reviews[row]
    for item in range(1, len(texts)):
        if data.items[item - 1] in data.titles or not texts[item].strip():
            texts[item] = data.title(item)
    return [" ".join(str(text).split()[:WORDS]) for text in texts]
