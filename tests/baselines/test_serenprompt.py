import dataclasses

import numpy as np
import pytest
import torch
import transformers
from inductive import check_inductive

from serendifflib.baselines import language
from serendifflib.baselines.language import (
    LanguageModel,
    family_of,
    word_tokenizer,
)
from serendifflib.baselines.serenenhance import SerenEnhance
from serendifflib.baselines.serenprompt import (
    FLOOR,
    KINDS,
    STYLES,
    VIRTUAL,
    SerenPrompt,
    item_texts,
)
from serendifflib.baselines.trainer import Budget
from serendifflib.errors import ConfigError, ModelError

from .toy import MaxCosine, cases, chance, hit_ratio, toy_fold

BUDGET = Budget(
    pretrain_steps=0,
    max_steps=120,
    batch_size=32,
    eval_every=40,
    patience=4,
)
WORDS = ["topic item " + " ".join(map(str, range(25))), "yes or no : ; ?"]


def fit(fold, seed=0, **options):
    options = {
        "language": "tiny",
        "first_stage": MaxCosine(),
        "top": 12,
        "prompt_steps": 2,
        "prompt_batch": 3,
    } | options
    model = SerenPrompt(budget=BUDGET, **options)
    return model.fit(fold, generator=torch.Generator().manual_seed(seed))


def weights(model):
    return {k: v.clone() for k, v in model.reader.model.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", STYLES)
def test_every_prompt_is_inductive_and_leaves_the_language_alone(kind, style):
    fold = toy_fold()
    tiny = LanguageModel.tiny(WORDS)
    before = {k: v.clone() for k, v in tiny.model.state_dict().items()}
    model = fit(fold, language=tiny, kind=kind, style=style)
    after = tiny.model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    histories, candidates, _ = cases(fold)
    check_inductive(model, histories[:3], candidates[:3])
    with pytest.raises(ModelError, match="SerenPrompt-style: row 0: padding"):
        model.score(torch.tensor([[1]]), torch.tensor([[0]]))


@pytest.mark.parametrize(
    ("kind", "slots"),
    [
        ("discrete", set()),
        ("hybrid", {"user", "item"}),
        ("continuous", {"user", "item", "ask0", "ask1"}),
    ],
)
def test_only_the_virtual_tokens_learn(kind, slots):
    fold = toy_fold()
    model = fit(fold, kind=kind)
    network = model.network
    assert set(network.slots) == slots
    trained = {n for n, p in network.named_parameters() if p.requires_grad}
    expected = {f"slots.{name}" for name in slots}
    if slots:
        expected |= {"weights", "shift"}
    assert trained == expected
    if not slots:
        assert model.report.steps == 0
        return
    assert model.report.parameters == len(slots) * VIRTUAL * 32 + 3
    network.zero_grad()
    asked = model._ask(fold.train.histories[0], torch.tensor([7, 8]))
    model._combined(asked)[0].backward()
    for name in slots:
        assert network.slots[name].grad.abs().sum() > 0
    assert all(p.grad is None for p in network.language.parameters())


def test_the_whole_language_model_can_learn():
    fold = toy_fold()
    tiny = LanguageModel.tiny(WORDS)
    before = {k: v.clone() for k, v in tiny.model.state_dict().items()}
    model = fit(fold, language=tiny, kind="discrete", tune_language=True)
    after = tiny.model.state_dict()
    assert any(not torch.equal(before[k], after[k]) for k in before)
    assert model.report.steps == 2


def tiny_reader(family):
    """A random model of two layers that knows :data:`WORDS`."""
    if family == "causal":
        return LanguageModel.tiny(WORDS)
    tokenizer = word_tokenizer(WORDS)
    torch.manual_seed(0)
    if family == "masked":
        model = transformers.BertForMaskedLM(
            transformers.BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
            )
        )
    else:
        model = transformers.T5ForConditionalGeneration(
            transformers.T5Config(
                vocab_size=len(tokenizer),
                d_model=32,
                d_kv=16,
                d_ff=64,
                num_layers=2,
                num_heads=2,
                decoder_start_token_id=tokenizer.pad_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    return LanguageModel("tiny", model.eval(), tokenizer, family)


@pytest.mark.parametrize("family", ["causal", "masked", "seq2seq"])
def test_answers_do_not_depend_on_company(family):
    tiny = tiny_reader(family)
    start = tiny.embed(tiny.tokens("item 1 item 2"))
    rest = [tiny.embed(tiny.tokens(t)) for t in ("topic 3", "item 1 item 2 ?")]
    together = tiny.ask(start, rest)
    alone = torch.cat([tiny.ask(start, [one]) for one in rest])
    assert torch.allclose(together, alone, atol=1e-5)
    assert not torch.isclose(together[0], together[1])
    config = tiny.model.config
    config.architectures = [type(tiny.model).__name__]
    assert family_of(config) == family


def test_the_cached_beginning_is_the_whole_prompt(monkeypatch):
    monkeypatch.setattr(language, "CHUNK", 2)
    tiny = LanguageModel.tiny(WORDS)
    yes, no = tiny.answers
    prompts = [("item 1", "topic 2 ?"), ("item 1", "7"), ("item 1", "8 9 no")]
    start = tiny.embed(tiny.tokens("item 1"))
    rest = [tiny.embed(tiny.tokens(end)) for _, end in prompts]
    with torch.no_grad():
        asked = tiny.ask(start, rest)
        for value, (first, last) in zip(asked, prompts, strict=True):
            ids = torch.tensor([tiny.tokens(f"{first} {last}")])
            logits = tiny.model(input_ids=ids).logits[0, -1]
            assert value == pytest.approx(
                float(logits[yes] - logits[no]), abs=1e-5
            )


def test_yes_and_no_are_told_apart():
    tiny = LanguageModel.tiny(WORDS)
    assert tiny.answers == (3, 4)
    assert tiny.tokens(" yes") == [3]
    tiny = LanguageModel.tiny(WORDS)
    tiny.tokens = lambda text: [0]
    with pytest.raises(ConfigError, match="yes and no to the same token"):
        _ = tiny.answers


def test_below_the_top_the_first_stage_rules():
    fold = toy_fold()
    model = fit(fold, top=12)
    histories, candidates, _ = cases(fold)
    histories, candidates = histories[:4], candidates[:4]
    scores = model.score(histories, candidates)
    first = model.ranker.score(histories, candidates)
    assert ((scores > -FLOOR - 0.5).sum(1) == 12).all()
    for row in range(4):
        order = first[row].argsort(descending=True)
        asked = set(candidates[row, order[:12]].tolist())
        above = candidates[row, scores[row] > -FLOOR - 0.5]
        assert asked == set(above.tolist())
        rest = scores[row, order[12:]]
        assert (rest[:-1] > rest[1:]).all()


def test_nobody_asked_means_the_order_of_the_first_stage():
    fold = toy_fold()
    stage = SerenEnhance(budget=BUDGET, width=32, lr=3e-3)
    model = fit(fold, first_stage=stage, share=0.0)
    assert hit_ratio(model, fold) == hit_ratio(stage, fold)
    assert hit_ratio(model, fold) > 4 * chance(fold)
    # re-ranking its top ten cannot change HR@10 either
    model.share, model.top = 1.0, 10
    assert hit_ratio(model, fold) == hit_ratio(stage, fold)


def test_the_oldest_titles_go_first():
    fold = toy_fold()
    model = fit(fold, kind="discrete")
    history = [1, 30, 60]
    everything = model._beginning(history, 1_000)
    opening = len(
        model.reader.tokens("A reader had these titles, oldest first:")
    )
    title = len(model.reader.tokens(" " + model.texts[60])) + 1
    short = model._beginning(history, opening + 2 * title)
    assert len(everything) == opening + 3 * title
    assert torch.equal(short[-2 * title :], everything[-2 * title :])
    assert len(short) == opening + 2 * title


def test_calibration_takes_the_answer_for_nobody_away():
    fold = toy_fold()
    model = fit(fold, kind="discrete", style="direct")
    # without a history all answers are the calibration itself
    model._ask_history, model.before = model._ask, {}
    model._ask = lambda history, items: model._ask_history(
        torch.zeros(1, dtype=torch.long), items
    )
    histories, candidates, _ = cases(fold)
    scores = model.score(histories[:2], candidates[:2])
    asked = scores[scores > -FLOOR - 0.5]
    assert torch.allclose(asked, torch.zeros_like(asked), atol=1e-4)


def test_texts_are_titles_or_harmless_reviews():
    fold = toy_fold()
    data = fold.interactions
    frame = data.frame.copy()
    labels = frame["label"].to_numpy()
    frame["review"] = [f"review {row}" for row in range(len(frame))]
    held_out = np.concatenate([fold.valid.rows, fold.test.rows])
    titled = data.items[4]
    fold = dataclasses.replace(
        fold,
        interactions=dataclasses.replace(
            data, frame=frame, titles={titled: "A Title " + "long " * 30}
        ),
    )
    texts = item_texts(fold)
    assert texts[0] == ""
    assert texts[5].startswith("A Title") and len(texts[5].split()) == 12
    forbidden = set(np.flatnonzero(labels == 1)) | set(held_out)
    for item in range(1, data.n_items + 1):
        if item == 5:
            continue
        rows = np.flatnonzero(data.item_index == item)
        free = [row for row in rows if row not in forbidden]
        expected = f"review {free[0]}" if free else data.items[item - 1]
        assert texts[item] == expected


def test_deterministic():
    fold = toy_fold()
    histories, candidates, _ = cases(fold)
    scores = [
        fit(fold, seed).score(histories[:3], candidates[:3])
        for seed in (1, 1, 2)
    ]
    assert torch.equal(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])


def test_missing_language_models_are_named(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no language model at nowhere"):
        LanguageModel.load("nowhere")
    with pytest.raises(ConfigError, match="not a language model"):
        LanguageModel.load(tmp_path)
    monkeypatch.setattr(language, "packaged_file", lambda: None)
    with pytest.raises(ConfigError, match=r"serendifflib\[llm\]"):
        LanguageModel.packaged()


def test_a_folder_on_this_machine_can_be_loaded(tmp_path):
    tiny = LanguageModel.tiny(WORDS)
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    loaded = LanguageModel.load(tmp_path)
    assert loaded.family == "causal"
    start = tiny.embed(tiny.tokens("item 1"))
    rest = [tiny.embed(tiny.tokens("topic 2"))]
    assert torch.allclose(loaded.ask(start, rest), tiny.ask(start, rest))


def test_unknown_options_are_refused():
    with pytest.raises(ConfigError, match="unknown kind 'soft'"):
        SerenPrompt(kind="soft")
    with pytest.raises(ConfigError, match="unknown style 'oblique'"):
        SerenPrompt(style="oblique")
    with pytest.raises(ConfigError, match="top must be at least 1"):
        SerenPrompt(top=0)


@pytest.mark.slow
def test_the_packaged_language_model_knows_something():
    if language.packaged_file() is None:
        pytest.skip("the llm extra is not installed")
    reader = LanguageModel.packaged()
    start = reader.embed(reader.tokens("Question: Is"))
    rest = [
        reader.embed(reader.tokens(f" {claim}? Answer yes or no.\nAnswer:"))
        for claim in ("Paris a city in France", "Paris a city in Japan")
    ]
    with torch.no_grad():
        right, wrong = reader.ask(start, rest)
    assert right > wrong
