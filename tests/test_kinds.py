import json

import numpy as np
import pytest
from PIL import Image

from diptych.data.tokenizer import Tokenizer
from diptych.errors import DataError
from diptych.eval.kinds import KINDS, EncoderWords, Scoring
from diptych.eval.measure import evaluate_zero_shot, kind_of, open_task
from diptych.eval.result import Result, interval_of, metric_of
from diptych.eval.tasks import Kind, Prompts
from diptych.sets.captioned import read_retrieval
from test_eval_tasks import task
from toys import ToyEncoder, draw, nine_kinds, pack, png


class Encoder(ToyEncoder):
    """Colours in pictures and in words; long texts are nothing to it."""

    def encode_texts(self, texts, *, truncate=False):
        return super().encode_texts(texts)


def measured(folder, kind, metric="accuracy", **values) -> Result:
    row = task(kind=kind, metric=metric, **values)
    return evaluate_zero_shot(Encoder(), open_task(row, folder), task=row)


def test_a_clip_is_the_mean_of_its_frames(tmp_path):
    draw(tmp_path, red__a__0="red", red__a__1="red", red__a__2="blue", blue__b__0="red", blue__b__1="blue")
    (tmp_path / "blue" / "b" / "0.png").write_bytes(b"")
    result = measured(tmp_path, "video")
    assert (result.n, result.value, result.skipped) == (2, 1.0, {"empty": 1})
    middle = measured(tmp_path, "video", frames="middle")
    assert (middle.n, middle.value) == (2, 1.0)  # the middle of two is the second
    draw(tmp_path, red__a__1="blue")
    assert measured(tmp_path, "video").value == 0.5


def test_splits_of_ucf101_count_alike(tmp_path):
    draw(tmp_path, red__a__0="red", red__b__0="blue", red__c__0="red", blue__d__0="blue")
    (tmp_path / "testlist01.txt").write_text("red/a.avi\nred/b.avi\nblue/d.avi\n")
    (tmp_path / "testlist02.txt").write_text("red/c.avi\n")
    assert measured(tmp_path, "video", "mean of 3 splits").value == pytest.approx((2 / 3 + 1) / 2)


def test_kinetics_is_the_mean_of_top1_and_top5(tmp_path):
    for number, colour in enumerate(("red", "green", "blue", "none", "nothing", "void")):
        draw(tmp_path, **{f"{colour}__a__0": "lime" if number == 0 else colour if number < 3 else "white"})
    draw(tmp_path, green__a__0="lime")
    result = measured(tmp_path, "video", "mean of top-1 and top-5")
    assert result.value == pytest.approx((result.numbers["top-1"] + result.numbers["top-5"]) / 2)
    assert result.numbers["top-1"] < result.numbers["top-5"]


def test_classes_of_one_name_tie_against_the_model_and_argmax_is_told_beside(tmp_path):
    draw(tmp_path, a__0="red", a__1="red", b__0="red", c__0="blue")
    names = {"a": ("red",), "b": ("red",), "c": ("blue",)}
    result = measured(tmp_path, "classification", renamed=names)
    assert result.value == result.numbers["top-1"] == 1 / 4  # the three red ones tie
    assert result.numbers["top-1 by argmax"] == 3 / 4  # the first of the tied is a: right for two of the three
    assert "red is the name of several classes" in result.prompts.naming
    other = measured(tmp_path, "classification", renamed=names | {"b": ("lime",)})
    assert "top-1 by argmax" not in other.numbers


def test_auc_takes_the_second_class_for_the_positive_one(tmp_path):
    draw(tmp_path, no__0="red", no__1="lime", yes__0="lime", yes__1="blue")
    names = {"no": ("red",), "yes": ("blue",)}
    # blue minus red: red -1, lime 0, lime 0, blue 1: of four pairs three are in order and one is a tie
    assert measured(tmp_path, "classification", "ROC AUC", renamed=names).value == 3 / 4
    draw(tmp_path, third__0="red")
    with pytest.raises(DataError, match="two classes for an AUC"):
        measured(tmp_path, "classification", "ROC AUC")


def test_the_ten_folds_of_stl10_are_one_number_for_zero_shot(tmp_path):
    draw(tmp_path, red__0="red", blue__0="red")
    assert measured(tmp_path, "classification", "mean of 10 folds").value == 0.5


def test_what_is_too_difficult_has_no_say_in_precision(tmp_path):
    lists = tmp_path / "VOC2007" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "red_test.txt").write_text("1 1\n2 -1\n3 0\n4 1\n")
    (lists / "blue_test.txt").write_text("1 -1\n2 1\n3 -1\n4 -1\n")
    (tmp_path / "VOC2007" / "JPEGImages").mkdir()
    for number, colour in enumerate(("red", "fuchsia", "red", "blue"), start=1):
        (tmp_path / "VOC2007" / "JPEGImages" / f"{number}.jpg").write_bytes(png(colour))
    result = measured(tmp_path, "multilabel", "11-point mAP")
    # red: ranks red (positive), fuchsia (not), blue (positive); blue: blue (not), fuchsia (positive)
    assert result.value == pytest.approx(((6 + 5 * 2 / 3) / 11 + 1 / 2) / 2)
    assert result.numbers["mAP over all positives"] == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    assert result.n == 4


def test_an_anchor_counts_when_the_frames_near_it_are_right(tmp_path):
    draw(tmp_path, **{"red__a__0": "red", "red__a__-9": "blue", "blue__b__0": "blue", "blue__c__0": "red"})
    draw(tmp_path, **{"blue__d__0": "red", "blue__d__1": "blue"})
    (tmp_path / "blue" / "d" / "0.png").write_bytes(b"")
    result = measured(tmp_path, "anchors", "mean of pm-0 and pm-10")
    assert (result.numbers["pm-0"], result.numbers["pm-10"]) == pytest.approx((2 / 3, 1 / 3))
    assert (result.value, result.n) == (pytest.approx(1 / 2), 3)


def test_a_word_is_looked_for_in_its_own_lexicon(tmp_path):
    draw(tmp_path, a="red", b="red")
    rows = [("a.png", "red", ["blue"]), ("b.png", "blue", ["green"])]
    lines = [json.dumps({"image": i, "word": w, "lexicon": x}) for i, w, x in rows]
    (tmp_path / "words.jsonl").write_text("\n".join(lines))
    result = measured(tmp_path, "ocr")  # blue ties with green for the red picture
    assert result.rows.correct is not None
    assert result.rows.correct.tolist() == [True, False]


def test_a_place_is_that_of_the_nearest_picture(tmp_path):
    draw(tmp_path, q="red", r="blue", far="red", near="blue")
    (tmp_path / "places.csv").write_text("image,latitude,longitude\nq.png,0,0\nr.png,0,0\n")
    (tmp_path / "reference.csv").write_text("image,latitude,longitude\nfar.png,0,10\nnear.png,0,0.1\n")
    result = measured(tmp_path, "geolocation", "within 25 km")
    assert result.value == 1 / 2  # 0.1 degree is 11 km, 10 degrees 1,112
    assert result.numbers == {
        "within 1 km": 0,
        "within 25 km": 0.5,
        "within 200 km": 0.5,
        "within 750 km": 0.5,
        "within 2500 km": 1,
    }


def test_the_right_caption_must_score_higher(tmp_path):
    row = {"filename": "a.png", "caption": "a red cup", "negative_caption": "a blue cup"}
    same = row | {"negative_caption": "a red mug"}
    (tmp_path / "swap_att.json").write_text(json.dumps({"0": row, "1": row | {"filename": "b.png"}}))
    (tmp_path / "add_att.json").write_text(json.dumps({"0": same}))
    draw(tmp_path, a="red", b="blue")
    result = measured(tmp_path, "compositional")
    assert result.rows.correct is not None
    assert result.rows.correct.tolist() == [False, True, False]  # a tie, right, wrong
    assert result.numbers == {"add_att": 0, "swap_att": 0.5}


def test_rare_actions_are_scored_by_their_own_measure(tmp_path):
    head = "id,video_id,start,end,class_id,verb,noun,annotation\n"
    rows = "1,x,0,1,0,red,cup,1\n2,y,0,1,0,red,cup,0\n3,z,0,1,1,blue,cup,1\n"
    (tmp_path / "rareact.csv").write_text(head + rows)
    draw(tmp_path, **{"1__0": "red", "2__0": "blue", "3__0": "blue"})
    assert measured(tmp_path, "rare-actions", "mWAP").value == 1.0
    Image.new("RGB", (4, 4), "blue").save(tmp_path / "1" / "0.png")
    Image.new("RGB", (4, 4), "red").save(tmp_path / "2" / "0.png")
    value = measured(tmp_path, "rare-actions", "mWAP").value
    assert value < 1
    assert np.isfinite(value)


def test_retrieval_counts_captions_of_pictures_that_could_be_read(tmp_path):
    members = {"a.png": png("red"), "a.txt": b"red\nblue", "b.png": b"", "b.txt": b"red", "c.png": png("blue")}
    pack(tmp_path / "test" / "0.tar", members | {"c.txt": b"blue"})
    (tmp_path / "test" / "nshards.txt").write_text("1")
    result = evaluate_zero_shot(Encoder(), read_retrieval(tmp_path))
    assert (result.measurement, result.metric) == ("retrieval", "text-to-image recall@1")
    assert (result.n, result.skipped) == (3, {"empty": 1})
    assert result.rows.keys == ("0/a#0", "0/a#1", "0/c#0")
    assert result.rows.correct is not None
    assert result.rows.correct.tolist() == [True, False, True]  # the red picture's caption "blue" finds the other
    assert result.value == pytest.approx(2 / 3)
    assert result.numbers["image to text recall@1"] == pytest.approx(1 / 2)  # "blue" is of both: a tie


class Model:
    def __init__(self):
        self.tokenizer = Tokenizer.train(["a photo of a cat"] * 9, vocab_size=600, context_length=6)
        self.batches = []

    def encode_texts(self, texts, *, truncate=False):
        self.batches.append(list(texts))
        return np.ones((len(self.tokenizer.encode(texts, truncate=truncate)), 2), np.float32)


def test_captions_go_through_the_template_are_cut_and_counted():
    model = Model()
    words = EncoderWords(model, 2)  # type: ignore[arg-type]
    prompts = Prompts(templates=("a {}",), source="ours")
    texts = Scoring(words=words, prompts=prompts, metric="accuracy", seed=0).filled(
        ["cat", "photo of a photo of a cat", "photo"]
    )
    assert words.texts(texts).shape == (3, 2)
    assert model.batches == [["a cat", "a photo of a photo of a cat"], ["a photo"]]
    assert words.too_long(texts) == 1


def test_captions_take_one_template():
    prompts = Prompts(templates=("a {}", "the {}"), source="ours")
    with pytest.raises(DataError, match=r"one prompt template\. Got 2"):
        Scoring(words=EncoderWords(Model()), prompts=prompts, metric="accuracy", seed=0).filled(["cat"])  # type: ignore[arg-type]


SETS: dict[str, Kind] = {
    "cifar10": "classification",
    "voc2007": "multilabel",
    "ucf101": "video",
    "imagenet_vid": "anchors",
    "rareact": "rare-actions",
    "captions": "retrieval",
    "iiit5k": "ocr",
    "im2gps": "geolocation",
    "sugarcrepe": "compositional",
}


@pytest.mark.parametrize(("name", "kind"), SETS.items())
def test_every_kind_names_its_rows_and_its_number_is_made_from_them(tmp_path, name: str, kind: Kind):
    pictures = KINDS[kind].open(nine_kinds(tmp_path) / name, split="test")
    assert kind_of(pictures) == kind
    result = evaluate_zero_shot(Encoder(), pictures, seed=3)
    assert (result.kind, result.task) == (kind, "" if name == "captions" else name)
    assert len(set(result.rows.keys)) == len(result.rows) == result.n > 1
    assert metric_of(result.rows, result.metric) == pytest.approx(result.value)
    assert metric_of(result.rows, result.metric, np.arange(result.n)[::-1].copy()) == pytest.approx(result.value)
    if kind != "rare-actions":  # whose interval nobody has asked for yet
        assert result.interval == interval_of(result.rows, result.metric, seed=3)


def test_the_table_of_kinds_has_nine_rows():
    assert set(KINDS) == set(SETS.values())
    assert len({row.pictures for row in KINDS.values()}) == 9
