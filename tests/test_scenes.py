import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from diptych.audit.scenes import scenes
from diptych.eval.picture_features import PictureFeatures
from diptych.sets.choices import read_choices
from diptych.sets.pictures import Pictures
from diptych.sets.scene_tasks import DrawnChoices, DrawnCounts, Thing, words
from scene_solver import is_true, things_in


class Ideal:
    """Stands in for `ModelFeatures`: reads a scene by rule; a caption fits where it is true."""

    truncate = True

    def __init__(self) -> None:
        self.seen: list[list[Thing]] = []

    def pictures(self, data: Pictures) -> PictureFeatures:
        assert isinstance(data, DrawnChoices | DrawnCounts)
        self.seen = [things_in(data.open(index), data.material) for index in range(len(data))]
        return PictureFeatures(torch.eye(len(data)), tuple(range(len(data))), {})

    def texts(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([[self.fits(text, things) for things in self.seen] for text in texts])

    def class_weights(self, labels: Sequence[Sequence[str]], templates: Sequence[str]) -> Tensor:
        return self.texts([templates[0].replace("{}", label[0]) for label in labels])

    def fits(self, text: str, things: list[Thing]) -> float:
        caption = re.sub(r"^a photo of (.*)\.$", r"\1", text)
        if match := re.fullmatch(r"(\w+) things?", caption):
            return float(words().counts[len(things) - 1] == match[1])
        return float(is_true(caption, things))

    def too_long(self, texts: Sequence[str]) -> int:
        return 0 * len(texts)

    def logits_per_image(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        return image_features @ text_features.T

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=1)


class Bag(Ideal):
    """Knows which words are true of a scene, in whatever order."""

    def fits(self, text: str, things: list[Thing]) -> float:
        true = {one.name for one in things} | {one.colour for one in things}
        return sum(word in true for word in re.findall(r"\w+", text)) / 10


def test_who_reads_scenes_by_rule_is_right_in_all():
    chapter = scenes(Ideal(), pairs=1, counts=10)  # pyright: ignore[reportArgumentType]
    assert {one.value for one in chapter.results} == {1.0}
    assert all(one.numbers["ideal"] == 1 for one in chapter.results)
    assert {one.numbers.get("both of a pair", 1) for one in chapter.results} == {1}
    assert chapter.examples == ()
    assert "SugarCrepe" in chapter.not_measured[0]


def test_who_knows_words_alone_is_right_about_names_and_never_about_their_order():
    chapter = scenes(Bag(), pairs=4, counts=10)  # pyright: ignore[reportArgumentType]
    found = {tuple(one.case.values()): one for one in chapter.results}
    assert found["all", "all", "a name", "bare"].value == 1
    assert found["all", "all", "a name", "bare"].numbers["without word order"] == 1
    order = found["all", "all", "the order alone", "bare"]
    assert order.value == 0  # a tie is a miss
    assert order.numbers == {"chance": 0.5, "without word order": 0.5, "ideal": 1.0}
    assert chapter.contrasts[0].name == "the order alone against a name, bare"
    assert chapter.contrasts[0].comparison.difference == -1
    assert chapter.contrasts[0].is_significant
    assert "100.0 points" in chapter.sentences[0]
    assert any("fits" in one.caption for one in chapter.examples)
    assert found["counting", "solids", "the number", "bare"].n == 10
    assert found["counting", "solids", "the number, below 5 things", "bare"].n == 4


class Given(Ideal):
    """Knows one word."""

    def pictures(self, data: Pictures) -> PictureFeatures:
        if isinstance(data, DrawnChoices | DrawnCounts):
            return super().pictures(data)
        self.seen = [[]] * len(data)
        return PictureFeatures(torch.eye(len(data)), tuple(range(len(data))), {})

    def fits(self, text: str, things: list[Thing]) -> float:
        return super().fits(text, things) if things else float("red" in text)


def test_sets_of_others_are_asked_kind_by_kind(tmp_path: Path):
    Image.new("RGB", (4, 4)).save(tmp_path / "1.png")
    rows = {
        "swap_att": ("a red cup and a blue hat", "a blue cup and a red hat"),
        "replace_att": ("a red cup", "a blue cup"),
    }
    for kind, (right, wrong) in rows.items():
        row = {"filename": "1.png", "caption": right, "negative_caption": wrong}
        (tmp_path / f"{kind}.json").write_text(json.dumps({"0": row}))
    given = [read_choices(tmp_path)]
    chapter = scenes(Given(), pairs=1, counts=10, given=given)  # pyright: ignore[reportArgumentType]
    found = {one.case["differs in"]: one for one in chapter.results if one.case["shown"] == "as given"}
    assert {kind: one.value for kind, one in found.items()} == {"swap_att": 0, "replace_att": 1}
    assert found["swap_att"].numbers["same words"] == 1
    assert found["replace_att"].numbers["same words"] == 0
    assert chapter.not_measured == ()


@pytest.mark.parametrize("change", ["name", "word", "order"])
def test_chance_is_that_of_who_reads_captions_alone(change: str):
    chapter = scenes(Blind(), pairs=3, counts=10)  # pyright: ignore[reportArgumentType]
    differs = {"name": "a name", "word": "an opposite word", "order": "the order alone"}[change]
    for one in chapter.results:
        if one.case["differs in"] == differs:
            assert one.value == 0.5
            assert one.numbers.get("both of a pair", 0) == 0
    assert {one.corrected for one in chapter.contrasts} == {1.0}


class Blind(Ideal):
    """Likes some sentences better than others, whatever is shown."""

    def pictures(self, data: Pictures) -> PictureFeatures:
        self.seen = [[]]
        return PictureFeatures(torch.ones(len(data), 1), tuple(range(len(data))), {})

    def fits(self, text: str, things: list[Thing]) -> float:
        assert not things
        return sum(ord(letter) * (place + 1) ** 1.1 for place, letter in enumerate(text)) % 1.0
