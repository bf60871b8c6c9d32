"""The captioner: its loss against a plain twin, what it may look at, and what it writes."""

import itertools
import math
from typing import Any

import pytest
import torch

from diptych.errors import ConfigError
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.torch_runtime import generator
from diptych.train.captioner import Caption, CaptionHead
from diptych.train.seen import Seen
from learning import Ends, learner_of, seen_of

TOKENS = torch.tensor([[1, 7, 9, 7, 2, 0], [1, 11, 2, 0, 0, 0], [1, 30, 31, 32, 33, 2]])


def head_of(ends: Ends = Ends(), **options: Any) -> CaptionHead:  # noqa: B008, frozen
    model = CLIP(preset("tiny-vit"), generator(0)).double()
    head = learner_of(model, [Caption(width=16, heads=2, **options)], ends).heads["caption"]
    assert isinstance(head, CaptionHead)
    return head


def seen(batch: int = 3, **more: Any) -> Seen:
    tokens = torch.randn(batch, 16, 32, generator=generator(8), dtype=torch.float64)
    return seen_of(batch, width=32, tokens=TOKENS[:batch], **({"image_tokens": tokens} | more))


def one(seen: Seen, row: int) -> Seen:
    tokens = seen.image_tokens
    assert tokens is not None
    return seen._replace(image_features=seen.image_features[row][None], image_tokens=tokens[row][None])


def log_chance(head: CaptionHead, picture: Seen, text: list[int], token: int) -> float:
    """Of one token behind a text, from a forward pass of that text alone."""
    return head.logits(picture, torch.tensor([text], dtype=torch.int64))[0, -1].log_softmax(dim=0)[token].item()


def plain_twin(head: CaptionHead, picture: Seen, tokens: list[int]) -> float:
    """Token by token: each from a forward pass over what stands before it."""
    text = tokens[: tokens.index(head.end_token_id) + 1]
    first = 0 if head.start_token_id is None else 1
    chances = [log_chance(head, picture, text[:place], text[place]) for place in range(first, len(text))]
    return -sum(chances) / len(chances)


@pytest.mark.parametrize("attends", [False, True])
@pytest.mark.parametrize("start", [1, None])
def test_the_loss_of_each_caption_equals_its_plain_twin(attends, start):
    head = head_of(Ends(start_token_id=start), attends=attends)
    pictures = seen()
    twins = [plain_twin(head, one(pictures, row), TOKENS[row].tolist()) for row in range(3)]
    assert head(pictures).tolist() == pytest.approx(twins, rel=1e-9)
    padded = torch.cat([TOKENS, torch.full((3, 2), 5)], dim=1)  # whatever stands behind the end
    assert head(pictures._replace(tokens=padded)).tolist() == pytest.approx(twins, rel=1e-9)


def test_padding_with_the_end_token_counts_no_further_ends():
    head = head_of()
    padded = torch.where(TOKENS == 0, 2, TOKENS)
    torch.testing.assert_close(head(seen()._replace(tokens=padded)), head(seen()))


def test_image_tokens_are_looked_at_where_the_config_says_so_and_only_there():
    other = torch.randn(3, 16, 32, generator=generator(9), dtype=torch.float64)
    for attends in (False, True):
        head = head_of(attends=attends)
        assert torch.allclose(head(seen()), head(seen(image_tokens=other))) != attends


def test_looking_at_the_picture_begins_as_if_it_were_not_there():
    model = CLIP(preset("tiny-vit"), generator(0)).double()
    head = learner_of(model, [Caption(width=16, heads=2, attends=True)]).heads["caption"]
    assert isinstance(head, CaptionHead)
    head.reset_parameters(generator(5), None)
    other = torch.randn(3, 16, 32, generator=generator(9), dtype=torch.float64)
    assert torch.equal(head(seen()), head(seen(image_tokens=other)))


@pytest.mark.parametrize("attends", [False, True])
@pytest.mark.parametrize("start", [1, None])
def test_a_score_is_the_chance_of_a_name_less_its_mean_over_pictures(monkeypatch, attends, start):
    head, pictures = head_of(Ends(start_token_id=start), attends=attends), seen()
    names = torch.tensor([[1, 7, 9, 2, 0], [1, 9, 7, 2, 0], [1, 7, 9, 11, 2], [1, 7, 2, 0, 0], [1, 7, 9, 2, 9]])
    chances = [
        [-plain_twin(head, one(pictures, row), name) * (name.index(2) + (start is None)) for name in names.tolist()]
        for row in range(3)
    ]
    by_hand = torch.tensor(chances, dtype=torch.float64)
    by_hand = by_hand - by_hand.mean(dim=0)
    torch.testing.assert_close(head.scores(pictures, names), by_hand)
    monkeypatch.setattr("diptych.train.captioner._TOKENS", 9)
    torch.testing.assert_close(head.scores(pictures, names), by_hand)


def test_greedy_takes_the_likeliest_token_each_time():
    head, picture = head_of(), one(seen(), 0)
    written = head.write(picture)
    text = [1]
    while text[-1] != 2 and len(text) < 16:
        text.append(max(range(512), key=lambda token: log_chance(head, picture, text, token)))
    assert written.tokens.tolist() == text
    chances = [log_chance(head, picture, text[:place], text[place]) for place in range(1, len(text))]
    assert written.score == pytest.approx(sum(chances) / len(chances))


def test_enough_beams_find_the_best_of_all_texts():
    head, picture = head_of(), one(seen(), 0)
    head.context_length = 4  # start, two tokens, and one more
    with torch.no_grad():  # a vocabulary of 6
        head.token_embedding.weight = torch.nn.Parameter(head.token_embedding.weight[:6].clone())
    best = -math.inf
    for text in itertools.product(range(6), repeat=3):
        tokens = [1, *text]
        ended = tokens[: tokens.index(2) + 1] if 2 in text else tokens
        chances = [log_chance(head, picture, ended[:place], ended[place]) for place in range(1, len(ended))]
        best = max(best, sum(chances) / len(chances))
    assert head.write(picture, beams=216).score == pytest.approx(best)


def test_a_text_ends_at_the_context_length():
    head, picture = head_of(), one(seen(), 0)
    with torch.no_grad():
        head.token_embedding.weight[2] = -30 * head.token_embedding.weight.sum(dim=0)
    for beams in (1, 3):
        tokens = head.write(picture, beams=beams).tokens
        assert len(tokens) == 16 or tokens[-1] == 2


def test_sizes_that_no_captioner_can_have_are_refused():
    with pytest.raises(ConfigError, match=r"caption\.heads must divide caption\.width\. Got heads=3, width=16\."):
        Caption(width=16, heads=3)
    with pytest.raises(ConfigError, match=r"caption\.prefix must be at least 1\. Got 0\."):
        Caption(prefix=0)
