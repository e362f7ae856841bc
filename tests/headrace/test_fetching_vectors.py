"""Reference vectors: which models get them, and are they what the model's own makers would compute?"""

import json
from pathlib import Path
from typing import Any

import pytest

from deployments import reference
from deployments.vector_check import distance
from headrace.fetching import FetchError, checkpoint, references, resolve, verify
from headrace.fetching.quiet import one_thread

ST = "sentence_transformers.models"
TEXTS = ("A man is eating food.", "A man eats something.", "The stock market fell today.")


@pytest.mark.parametrize(
    ("architecture", "pools"),
    [
        ("LlamaForCausalLM", False),
        ("GPT2LMHeadModel", False),
        ("ChatGLMModel", True),  # vLLM has a list of exceptions; such a one gets no reference, and says so
        ("BertModel", True),
        ("BertForSequenceClassification", True),
        ("BertForTokenClassification", True),
        ("Qwen2ForRewardModel", True),
        ("T5ForConditionalGeneration", False),
    ],
)
def test_the_architecture_says_whether_a_model_pools(tmp_path: Path, architecture: str, pools: bool):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    assert checkpoint.pools(tmp_path) is pools


def test_modules_of_sentence_transformers_say_so_too(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"architectures": ["Qwen3ForCausalLM"]}')
    assert not checkpoint.pools(tmp_path)
    (tmp_path / "modules.json").write_text("[]")
    assert checkpoint.pools(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", None])
def test_a_config_that_can_t_be_read_is_one_clear_line(tmp_path: Path, text: str | None):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(FetchError, match=r"config\.json can't be read"):
        checkpoint.pools(tmp_path)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A small BERT made of chance, without a word on how it pools."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(resolve("minilm"))
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def pooling(folder: Path, *modules: str, **config: Any) -> None:
    paths = {"Transformer": "", "Pooling": "1_Pooling"}
    named = [{"type": f"{ST}.{name}", "path": paths.get(name, name)} for name in ("Transformer", "Pooling", *modules)]
    (folder / "modules.json").write_text(json.dumps(named))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))


def noted(folder: Path) -> list[str]:
    """What the user reads for good."""
    notes: list[Any] = []
    with one_thread():
        references.add(folder, "made", notes.append)
    return [note for note in notes if isinstance(note, str)]


def states(folder: Path, token_ids: tuple[int, ...]) -> Any:
    """The last hidden states by transformers, in float64."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.float64)
    with torch.inference_mode():
        return model(torch.tensor([token_ids])).last_hidden_state[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "pool"),
    [
        ("pooling_mode_mean_tokens", lambda rows: rows.mean(dim=0)),
        ("pooling_mode_cls_token", lambda rows: rows[0]),
        ("pooling_mode_lasttoken", lambda rows: rows[-1]),
    ],
)
@pytest.mark.parametrize("normalize", [True, False])
def test_vectors_are_pooled_as_the_modules_say(made: Path, mode: str, pool: Any, normalize: bool):
    modules = ("Normalize",) if normalize else ()
    pooling(made, *modules, **{mode: True, "word_embedding_dimension": 32, "include_prompt": True})
    assert noted(made) == []
    known = reference.load_vectors(made)
    assert known is not None
    assert known.task == "embed"
    for vector in known.vectors[:2]:
        expected = pool(states(made, vector.token_ids))
        expected = expected / expected.norm() if normalize else expected
        assert distance(list(vector.values), expected.tolist()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modules", "config", "reason"),
    [
        (("Dense",), {"pooling_mode_mean_tokens": True}, f"modules.json names {ST}.Dense"),
        ((), {"pooling_mode_max_tokens": True}, "it pools by pooling_mode_max_tokens"),
        ((), {"pooling_mode_mean_tokens": False}, "it pools by no way that its modules tell"),
        (
            (),
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "it pools by pooling_mode_mean_tokens, pooling_mode_cls_token",
        ),
    ],
)
def test_a_way_to_pool_that_is_not_known_gets_no_vectors_and_says_which(
    made: Path, modules: tuple[str, ...], config: dict[str, bool], reason: str
):
    pooling(made, *modules, **config)
    assert noted(made) == [f"made: no reference vectors: {reason}"]
    assert reference.load_vectors(made) is None


@pytest.mark.slow
def test_a_model_that_says_nothing_or_has_its_own_code_gets_no_vectors(made: Path):
    assert noted(made) == ["made: no reference vectors: no modules.json says how it pools"]
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "own.Model"}}))
    assert noted(made) == ["made: no reference vectors: code of its own computes it"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "classes", "score"),
    [
        ({}, 3, lambda logits: logits.softmax(0)),
        ({}, 1, lambda logits: logits.sigmoid()),
        ({"problem_type": "multi_label_classification"}, 3, lambda logits: logits.sigmoid()),
        ({"problem_type": "regression"}, 1, lambda logits: logits),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, 1, lambda logits: logits),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
            1,
            lambda logits: logits.sigmoid(),
        ),
    ],
)
def test_a_classifier_s_scores_are_those_that_its_config_asks_for(made: Path, config: Any, classes: int, score: Any):
    import torch

    model = classifier(made, classes, **config)
    assert noted(made) == []
    known = reference.load_vectors(made)
    assert known is not None
    assert known.task == "classify"
    for vector in known.vectors[:2]:
        with torch.inference_mode():
            expected = score(model(torch.tensor([vector.token_ids])).logits[0])
        assert list(vector.values) == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.slow
def test_a_classifier_with_scores_of_another_kind_gets_none(made: Path):
    classifier(made, 1, sbert_ce_default_activation_function="torch.nn.modules.activation.Tanh")
    assert noted(made) == ["made: no reference vectors: config.json names torch.nn.modules.activation.Tanh"]


def classifier(folder: Path, classes: int, **config: Any) -> Any:
    """Makes a classifier of what is in the folder."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=classes)
    model.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return model.eval()


@pytest.mark.slow
def test_minilm_is_whole_and_means_what_it_should():
    import torch
    from transformers import AutoTokenizer

    folder = resolve("minilm")
    assert verify(folder) == []
    known = reference.load_vectors(folder)
    assert known is not None
    assert len(known.vectors) == 2 * len(references.CHATS)
    vector = known.vectors[-1]
    expected = torch.nn.functional.normalize(states(folder, vector.token_ids).mean(dim=0), dim=0)
    assert distance(list(vector.values), expected.tolist()) < 1e-5
    tokenizer = AutoTokenizer.from_pretrained(folder)
    told, same, other = (
        torch.nn.functional.normalize(states(folder, tuple(tokenizer.encode(text))).mean(dim=0), dim=0)
        for text in TEXTS
    )
    assert told @ same > 0.8
    assert told @ other < 0.2
