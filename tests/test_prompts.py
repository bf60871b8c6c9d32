import pytest

from diptych.data.prompts import PLAIN, TEMPLATES, check_labels, check_templates, fill, read_lines
from diptych.errors import DataError

# clip-paper-facts.md, section 5.4
COUNTS = {
    "imagenet": 80,
    "cifar": 18,
    "caltech101": 34,
    "ucf101": 48,
    "kinetics700": 28,
    "resisc45": 18,
    "stanford_cars": 8,
    "dtd": 8,
    "fer2013": 6,
    "country211": 5,
    "eurosat": 3,
    "gtsrb": 3,
    "fgvc_aircraft": 2,
    "stl10": 2,
    "sun397": 2,
} | dict.fromkeys(
    [
        *("birdsnap", "flowers102", "pets", "food101", "voc2007", "mnist", "clevr_counts", "kitti", "patch_camelyon"),
        *("hateful_memes", "rendered_sst2"),
    ],
    1,
)

MEMBERS = {
    "imagenet": [
        "a bad photo of a {}.",
        "a jpeg corrupted photo of the {}.",
        "a close-up photo of the {}.",
        "a black and white photo of a {}.",
        "a photo of a hard to see {}.",
        "a photo of the large {}.",
        "a photo of many {}.",
        "a photo of my {}.",
        "a rendition of the {}.",
        "graffiti of a {}.",
        "the embroidered {}.",
        "a origami {}.",
        "a {} in a video game.",
        "itap of my {}.",
    ],
    "cifar": ["a photo of a {}.", "a photo of the big {}.", "a high contrast photo of the {}."],
    "caltech101": ["a photo of the {}.", "a sculpture of a {}.", "art of the {}.", "the {} in a video game."],
    "ucf101": ["a photo of a person {}.", "a demonstration of the person practicing {}."],
    "kinetics700": ["a video of {}.", "a example of a person {}.", "a photo of a person using {}."],
    "resisc45": ["satellite imagery of {}.", "aerial view of the {}."],
    "stanford_cars": ["i love my {}!", "a photo of my {}.", "a photo of my dirty {}."],
    "dtd": ["a photo of the {} texture.", "a photo of a {} object."],
    "country211": ["a photo i took while visiting {}.", "a photo showing the country of {}."],
    "eurosat": ["a centered satellite photo of {}.", "a centered satellite photo of a {}."],
    "gtsrb": ['a zoomed in photo of a "{}" traffic sign.'],
    "fgvc_aircraft": ["a photo of the {}, a type of aircraft."],
    "food101": ["a photo of {}, a type of food."],
    "patch_camelyon": ["this is a photo of {}"],
}


def test_published_sets_have_their_published_sizes():
    assert {name: len(templates) for name, templates in TEMPLATES.items()} == COUNTS


def test_published_templates_are_valid_distinct_and_clean():
    for templates in TEMPLATES.values():
        assert check_templates(templates) == templates
        assert len(set(templates)) == len(templates)
        assert not any("  " in template or "_" in template for template in templates)


@pytest.mark.parametrize("name", MEMBERS)
def test_published_sets_hold_these_members(name):
    assert set(MEMBERS[name]) <= set(TEMPLATES[name])


def test_the_class_name_goes_into_the_gap_and_keeps_its_braces():
    assert fill(("a photo of a {}.", *PLAIN, "{x} {}"), "set {}") == ["a photo of a set {}.", "set {}", "{x} set {}"]


def test_clip_benchmark_spelling_of_the_gap_is_read():
    assert check_templates(["a photo of {c}.", "{}"]) == ("a photo of {}.", "{}")


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        (["{}", "a photo"], r"must hold one \{\} .* Got 0 in 'a photo'"),
        (["{} and {c}"], "Got 2 in"),
        ([], "at least one string"),
        ("a photo of {}", "must be a list"),
    ],
)
def test_a_template_without_one_gap_is_refused(templates, message):
    with pytest.raises(DataError, match=message):
        check_templates(templates)


def test_labels_are_stripped():
    assert check_labels([" cat", "polar bear "]) == ("cat", "polar bear")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat", " "], "must not be empty. Number 2 of 2"),
        (["crane", "cat", "kite", " crane", "kite"], "More than once: crane, kite"),
        ([], "at least one string"),
        ("cat", "must be a list"),
    ],
)
def test_empty_and_repeated_labels_are_named(labels, message):
    with pytest.raises(DataError, match=message):
        check_labels(labels)


def test_lines_are_read_with_mark_blank_lines_and_windows_ends(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffcat\r\n\r\n  café\u2028noir \r\ndog".encode())
    assert read_lines(path) == ["cat", "café\u2028noir", "dog"]


def test_files_that_hold_no_lines_are_named(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("\n \n")
    with pytest.raises(DataError, match=r"labels.txt must hold at least one line"):
        read_lines(path)
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match="must be UTF-8 text"):
        read_lines(path)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_lines(tmp_path / "absent.txt")
