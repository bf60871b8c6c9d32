import pytest
import torch

from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError
from diptych.model.bag_tower import BagTower, BagTowerConfig
from diptych.torch_runtime import generator


@pytest.fixture
def tower() -> BagTower:
    tower = BagTower(BagTowerConfig(context_length=6, vocab_size=9), 4)
    tower.reset_parameters(generator(0))
    tower.load_state_dict({"token_weights": torch.tensor([5.0, 0, 0, 1, 2, 3, 4, 5, 6])}, strict=False)
    return tower


def test_a_text_is_the_weighted_mean_of_its_words_as_worked_by_hand(tower):
    rows = tower.token_embedding.weight
    (feature,) = tower(torch.tensor([[1, 4, 3, 4, 2, 0]]))
    torch.testing.assert_close(feature, (2 * rows[4] + 1 * rows[3] + 2 * rows[4]) / 5)


def test_order_and_padding_change_nothing(tower):
    feature = tower(torch.tensor([[1, 5, 6, 2]]))
    torch.testing.assert_close(tower(torch.tensor([[1, 6, 5, 2, 0, 0]])), feature)
    assert not torch.allclose(tower(torch.tensor([[1, 6, 6, 2]])), feature)


def test_a_text_of_words_that_count_nothing_has_a_direction_all_the_same(tower):
    feature = tower(torch.tensor([[1, 2, 0, 0]]))
    torch.testing.assert_close(feature[0], tower.token_embedding.weight[1:3].mean(dim=0))


def test_a_new_tower_counts_all_words_alike():
    tower = BagTower(BagTowerConfig(context_length=6, vocab_size=9), 4)
    tower.reset_parameters(generator(0))
    torch.testing.assert_close(tower(torch.tensor([[3, 4]]))[0], tower.token_embedding.weight[3:5].mean(dim=0))
    assert tower.token_weights.tolist() == [0.0] + [1.0] * 8  # or padding would be a word


def test_padding_that_is_no_token_or_another_one_is_refused():
    with pytest.raises(ConfigError, match=r"text\.pad_token_id must be one of 9 tokens\. Got 9\."):
        BagTowerConfig(vocab_size=9, pad_token_id=9)
    tokenizer = Tokenizer.train(["a red kite"] * 3, vocab_size=530, context_length=8)
    with pytest.raises(ConfigError, match=r"must have the same padding\. Got 3 and 0: of the same model\?"):
        BagTowerConfig(vocab_size=530, pad_token_id=3).check_tokenizer(tokenizer)
