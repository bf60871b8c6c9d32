import json

import pytest

from diptych.data.class_names import codes_among, imagenet_names, readable_names
from diptych.errors import DataError


def names(*labels: str, **where) -> tuple[str, ...]:
    return readable_names(labels, **where).names


def test_the_ids_of_imagenet_are_in_their_order_and_known_classes_stand_at_their_numbers():
    ids, named = list(imagenet_names()), list(imagenet_names().values())
    assert len(ids) == 1000
    assert ids == sorted(ids)
    numbers = {
        0: "tench",
        1: "goldfish",
        134: "crane bird",
        207: "Golden Retriever",
        281: "tabby cat",
        517: "construction crane",
    }
    assert {number: named[number] for number in numbers} == numbers
    assert (named[951], named[999]) == ("lemon", "toilet paper")
    assert imagenet_names()["n02123045"] == "tabby cat"


def test_wordnet_ids_get_their_names_and_it_is_said():
    told = readable_names(["n01440764", "n01443537", "background"])
    assert told.names == ("tench", "goldfish", "background")
    assert told.naming == "WordNet ids by their names (n01440764 -> tench)"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("words.txt", "n00004475\torganism, being\nn00005787\tbenthos\n"),
        ("LOC_synset_mapping.txt", "n00004475 organism, being\nn00005787 benthos\n"),
        ("map_vid.txt", "n00004475 1 organism\nn00005787 2 benthos\n"),
        ("imagenet_class_index.json", json.dumps({"0": ["n00004475", "organism"], "1": ["n00005787", "benthos"]})),
        ("Labels.json", json.dumps({"n00004475": "organism, being", "n00005787": "benthos"})),
    ],
)
def test_other_wordnet_ids_are_looked_up_beside_the_data(tmp_path, file, text):
    (tmp_path / "val").mkdir()
    (tmp_path / file).write_text(text)
    ids = ("n00004475", "n01440764", "n00005787")
    assert names(*ids, beside=tmp_path / "val") == ("organism", "tench", "benthos")
    assert names(*ids, beside=tmp_path) == ("organism", "tench", "benthos")
    assert names(*ids) == ("n00004475", "tench", "n00005787")


def test_a_list_of_ids_that_is_damaged_is_named(tmp_path):
    (tmp_path / "Labels.json").write_text("{")
    with pytest.raises(DataError, match=r"Labels\.json must be JSON"):
        names("n00004475", beside=tmp_path)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["001.Black_footed_Albatross", "002.Laysan_Albatross"], ["Black footed Albatross", "Laysan Albatross"]),
        (["12_daisy", "3_rose"], ["daisy", "rose"]),
        (["0-zero", "1-one"], ["zero", "one"]),
        (["01 cat", "02 dog"], ["cat", "dog"]),
        (["1) cat", "2) dog"], ["cat", "dog"]),
        (["n02085620-Chihuahua", "n02085782-Japanese_spaniel"], ["Chihuahua", "Japanese spaniel"]),
        (["n01440764 tench, Tinca tinca", "n01443537 goldfish, Carassius auratus"], ["tench", "goldfish"]),
        # What is part of the name stays.
        (["001.cat", "dog"], ["001.cat", "dog"]),
        (["707-320", "727-200"], ["707-320", "727-200"]),
        (["3 dogs", "4 cats"], ["3 dogs", "4 cats"]),
        (["3_objects", "4_objects"], ["3 objects", "4 objects"]),
        (["5_dogs", "5_cats"], ["5 dogs", "5 cats"]),
        (["3D_glasses", "4K_tv"], ["3D glasses", "4K tv"]),
        (["ApplyEyeMakeup", "YoYo"], ["ApplyEyeMakeup", "YoYo"]),
        (["a_b", "a b"], ["a_b", "a b"]),
        (["7", "8"], ["7", "8"]),
    ],
)
def test_codes_before_the_names_are_cut_where_all_have_them(labels, expected):
    told = readable_names(labels)
    assert list(told.names) == expected
    assert bool(told.naming) == (labels != expected)


def test_each_step_is_said_with_an_example():
    assert readable_names(["001.Black_Kite", "002.Red_Kite"]).naming == (
        "leading numbers cut (001.Black_Kite -> Black_Kite); _ as a space (Black_Kite -> Black Kite)"
    )


def test_ids_without_a_name_are_refused_and_numbers_are_said():
    with pytest.raises(DataError, match=r"2 of 3 are WordNet ids .* e\.g\. n00004475: put words\.txt"):
        codes_among(["n00004475", "tench", "n00005787"])
    for numbers in (["0", "1"], ["c0", "c1"], ["class 2", "Class 10"]):
        assert "names are numbers" in codes_among(numbers)
    for fine in (["cat", "dog"], ["A300", "737"], ["7"], ["two 2", "dog"]):
        assert codes_among(fine) == ""
