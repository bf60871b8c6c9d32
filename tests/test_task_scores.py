import json

import pytest

from diptych.eval.picture_features import encode_pictures
from diptych.eval.task_scores import open_task, run_zero_shot, score_task
from test_task_kinds import Encoder as ToyEncoder
from test_tasks import task
from toys import pack, png


@pytest.fixture
def folder(tmp_path):
    for name, colour in (("red/0", "red"), ("red/1", "blue"), ("green/0", "lime"), ("blue/0", "blue")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.png").write_bytes(png(colour))
    (tmp_path / "blue" / "broken.png").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(("metric", "value"), [("accuracy", 3 / 4), ("mean per class", (1 / 2 + 1 + 1) / 3)])
def test_classification_gives_the_metric_of_the_task(folder, metric, value):
    result = run_zero_shot(ToyEncoder(), task(metric=metric), folder)
    assert result.value == pytest.approx(value)
    assert (result.n, result.skipped, result.metric) == (4, {"empty": 1}, metric)
    assert result.correct.tolist() == [True, True, True, False]  # blue, green, red, red
    json.dumps(result.to_dict())


def test_features_from_a_cache_give_the_same(folder):
    one = task()
    pictures = open_task(one, folder)
    encoded = encode_pictures(ToyEncoder().encode_images, pictures)
    cached = score_task(ToyEncoder(), one, pictures, encoded)
    assert cached.to_dict() == run_zero_shot(ToyEncoder(), one, folder).to_dict()


def test_retrieval_counts_captions_of_pictures_that_could_be_read(tmp_path):
    members = {"a.png": png("red"), "a.txt": b"red\nblue", "b.png": b"", "b.txt": b"red", "c.png": png("blue")}
    pack(tmp_path / "test" / "0.tar", members | {"c.txt": b"blue"})
    (tmp_path / "test" / "nshards.txt").write_text("1")
    result = run_zero_shot(ToyEncoder(), task(kind="retrieval", metric="text-to-image recall@1"), tmp_path)
    assert (result.n, result.skipped) == (3, {"empty": 1})
    assert result.correct.tolist() == [True, False, True]  # the red picture's caption "blue" finds the other
    assert result.value == pytest.approx(2 / 3)
    assert result.others["image to text recall@1"] == pytest.approx(1 / 2)  # "blue" is of both: a tie
