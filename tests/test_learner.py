"""The forward pass of training runs what is needed, and gives features of a model and losses of heads."""

import pytest
import torch

from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.torch_runtime import generator
from diptych.train.objectives import Caption, Classification, Contrastive
from learning import learner_of, with_bag

CAPTION = Caption(width=16, heads=2, layers=1, attends=True)


@pytest.fixture
def model() -> CLIP:
    return CLIP(preset("tiny-vit"), generator(0)).eval()


@pytest.fixture
def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.tensor([[1, 7, 9, 2], [1, 11, 2, 0], [1, 30, 31, 2]])
    return torch.randn(3, 3, 32, 32, generator=generator(1)), tokens


def test_without_heads_it_gives_what_the_model_itself_does(model, pairs):
    outputs = learner_of(model, [Contrastive()])(*pairs)
    assert outputs.losses is None
    for ours, theirs in zip(outputs.features, model(*pairs), strict=True):
        assert ours is theirs is None or torch.equal(ours, theirs)


def test_each_head_has_its_column_in_the_order_of_the_objectives(model, pairs):
    learner = learner_of(model, [CAPTION, Contrastive(), Classification()])
    outputs = learner(*pairs)
    assert outputs.losses.shape == (3, 2)
    seen = learner.see(pairs[0])._replace(tokens=pairs[1])
    torch.testing.assert_close(outputs.losses[:, 0], learner.heads["caption"](seen))
    torch.testing.assert_close(outputs.losses[:, 1], learner.heads["classification"](seen))
    assert learner(*pairs, with_heads=False).losses is None


def test_patches_that_are_dropped_are_seen_by_no_head(model, pairs):
    learner = learner_of(model, [CAPTION])
    kept = torch.arange(4).expand(3, 4)
    images = pairs[0].clone()
    before = learner(*pairs, kept).losses
    images[:, :, 16:] += 1  # the lower half, of which no patch is kept
    torch.testing.assert_close(learner(images, pairs[1], kept).losses, before)
    assert not torch.allclose(learner(images, pairs[1]).losses, learner(*pairs).losses)


def test_rows_of_a_bag_of_words_are_shown_to_heads_and_those_of_other_towers_are_not(model, tiny_recipe, pairs):
    assert learner_of(model, [Classification()]).see(pairs[0]).word_rows is None
    bag = CLIP(with_bag(tiny_recipe).model, generator(0)).eval()
    seen = learner_of(bag, [Classification()]).see(pairs[0])
    assert seen.word_rows is bag.text.token_embedding.weight
    assert seen.word_weights is not None
    assert seen.word_weights.shape == (600,)


def test_known_features_of_a_frozen_tower_are_taken_as_they_are(model, pairs):
    known = torch.nn.functional.normalize(torch.randn(3, 32, generator=generator(4)), dim=1)
    outputs = learner_of(model, [Contrastive()])(*pairs, None, known)
    assert outputs.features.image_features is known
