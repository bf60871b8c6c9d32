"""Heads beside a bundle: written and read again, refused when damaged, and asked to tell names apart and to write."""

import json
from pathlib import Path

import pytest
import torch

from conftest import drawing
from diptych.errors import ConfigError, WeightsError
from diptych.train.captioner import Caption
from diptych.train.heads import Captioner, Heads, NameScorer
from diptych.train.objectives import Classification, build_heads
from diptych.weights.bundle import Bundle
from learning import learner_of

OBJECTIVES = (Caption(width=16, heads=2, layers=1, attends=True), Classification(weight=0.5))


@pytest.fixture
def heads(tiny_bundle) -> Heads:
    learner = learner_of(tiny_bundle.model, OBJECTIVES)
    return Heads(objectives=OBJECTIVES, tensors=learner.heads.state_dict())


@pytest.fixture
def folder(tiny_bundle, heads, tmp_path) -> Path:
    tiny_bundle.save(tmp_path / "bundle")
    heads.save(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_heads_come_back_with_their_configs_and_every_bit(heads, folder, tiny_bundle):
    again = Heads.load(folder)
    assert tuple(again.objectives) == OBJECTIVES
    assert again.tensors.keys() == heads.tensors.keys()
    assert all(torch.equal(value, heads.tensors[name]) for name, value in again.tensors.items())
    built = again.build(tiny_bundle).state_dict()
    assert all(torch.equal(built[name], value) for name, value in heads.tensors.items())
    plain = json.loads((folder / "objectives.json").read_text())
    assert plain["format"] == "diptych-objectives-1"
    assert plain["objectives"][1] == {"kind": "classification", "weight": 0.5}


def test_the_folder_stays_a_whole_bundle_that_transformers_opens(folder, tiny_bundle):
    assert Bundle.load(folder).fingerprint() == tiny_bundle.fingerprint()
    model = pytest.importorskip("transformers").CLIPModel.from_pretrained(folder)
    assert model.config.model_type == "clip"


def test_a_folder_without_heads_has_none(tiny_bundle, tmp_path):
    Heads(objectives=(), tensors={}).save(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert Heads.load(tmp_path).objectives == ()
    assert len(build_heads([], tiny_bundle.model.config, tiny_bundle.tokenizer)) == 0


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("weights", r"objectives\.safetensors is not what was saved: copy it again"),
        ("format", r"its format must be diptych-objectives-1, and is diptych-objectives-2; update diptych"),
        ("gone", r"must be the heads of a model: "),
        ("no json", r"must be the heads of a model: "),
        ("kind", r"objectives\[0\]\.kind must be one of"),
    ],
)
def test_damaged_heads_are_one_sentence(folder, damage, sentence):
    weights, config = folder / "objectives.safetensors", folder / "objectives.json"
    if damage == "weights":
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    elif damage == "gone":
        weights.unlink()
    elif damage == "no json":
        config.write_text("{")
    else:
        name = {"format": "-1", "kind": '"caption"'}[damage]
        config.write_text(config.read_text().replace(name, {"format": "-2", "kind": '"poem"'}[damage]))
    with pytest.raises(WeightsError, match=sentence) as caught:
        Heads.load(folder)
    assert "\n" not in str(caught.value)


def test_heads_of_another_model_are_refused(folder, tiny_bundle):
    heads = Heads.load(folder)
    odd = {name: value[:-1] if name == "classification.bias" else value for name, value in heads.tensors.items()}
    with pytest.raises(WeightsError, match="must fit the model that it lies beside"):
        Heads(objectives=heads.objectives, tensors=odd).build(tiny_bundle)


def test_names_are_scored_as_the_head_does(folder, tiny_bundle, heads):
    pictures = [drawing("red", "bar", 14), drawing("blue", "cross", 9)]
    names = ["a red kite", "a blue boat", "a boat"]
    scorer = NameScorer(tiny_bundle, heads, "classification")
    assert not scorer.names_by_bundle
    scores = scorer(pictures, names)
    rows, weights = heads.tensors["classification.rows"], heads.tensors["classification.weights"]
    tokens = torch.from_numpy(tiny_bundle.tokenizer.encode(names))
    text = torch.stack([(weights[row][:, None] * rows[row]).sum(dim=0) for row in tokens])
    by_hand = torch.from_numpy(tiny_bundle.encode_images(pictures)) @ torch.nn.functional.normalize(text, dim=1).T
    torch.testing.assert_close(scores, by_hand)
    by_caption = NameScorer(tiny_bundle, heads, "caption")(pictures, names)
    torch.testing.assert_close(by_caption.sum(dim=0), torch.zeros(3), rtol=0, atol=1e-4)  # less its mean over pictures


def test_a_caption_is_the_text_of_the_tokens_that_were_written(folder, tiny_bundle):
    write = Captioner(Bundle.load(folder), Heads.load(folder))
    text, written = write(drawing("red", "bar", 14), beams=2)
    assert text == tiny_bundle.tokenizer.decode(written.tokens[1:])
    assert written.score < 0


def test_a_model_that_did_not_learn_to_write_is_refused_with_the_cure(tiny_bundle, heads):
    cure = r'A recipe with \[\[train\.objectives\]\] kind = "caption" trains one\.'
    with pytest.raises(ConfigError, match=rf"There is no objectives\.safetensors beside it\. {cure}"):
        Captioner(tiny_bundle, Heads(objectives=(), tensors={}))
    words = Heads(objectives=OBJECTIVES[1:], tensors={})
    with pytest.raises(ConfigError, match=rf"It has heads for classification\. {cure}"):
        Captioner(tiny_bundle, words)
