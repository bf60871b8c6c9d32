"""captions/text_lists.py: boilerplate, watermarks and the user's own list."""

import pytest

from diptych.captions.text_lists import Boilerplate, DenyWords, Watermarks
from diptych.errors import DataError
from pair_tables import kept_by, measured_by


@pytest.mark.parametrize(
    "text",
    [
        "Image may contain: 2 people",
        "CLICK HERE to see",
        "Add to cart",
        "logo",
        "Profile picture",
        "Zum Vergrößern klicken",
        "Cliquez ici",
        "haz clic aquí",
        "clique aqui!",
        "нажмите здесь",
        "请点击查看大图",
        "クリックで拡大します",
        "여기를 클릭",
        "اضغط هنا",
        "คลิกที่นี่",
        "यहां क्लिक करें",
    ],
)
def test_what_pages_say_beside_pictures_is_dropped(text):
    assert kept_by(Boilerplate(), text) == [False]


def test_the_same_words_in_a_caption_are_kept():
    texts = [
        "A logo of a bank on a wall",
        "A woman clicks a pen here",
        "An avatar of a girl",
        "two children with a cart",
    ]
    assert kept_by(Boilerplate(), *texts) == [True] * 4
    assert kept_by(Watermarks(), "a man in stock", "an alarm clock") == [True] * 2


def test_names_of_agencies_are_dropped_with_the_name_as_what_was_measured():
    assert kept_by(Watermarks(), "A cat - iStock", "Dog (Getty Images)", "Royalty-free image of a cat") == [False] * 3
    assert measured_by(Watermarks(), "A cat - iStock") == "istock"


def test_a_list_of_ones_own_has_its_name_in_the_cause_and_its_words_only_where_asked(tmp_path):
    file = tmp_path / "rude.txt"
    file.write_text("damn\nbloody hell\n", encoding="utf-8")
    rule = DenyWords(file=file)
    assert kept_by(rule, "DAMN it", "Bloody  hell!", "a damned place", "hell bloody") == [False, False, True, True]
    assert (rule.name, rule.limit, measured_by(rule, "damn")) == ("deny-words rude", "no word of rude.txt", None)
    assert measured_by(DenyWords(file=file, show=True), "oh bloody hell") == "bloody hell"


def test_a_list_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.txt"):
        kept_by(DenyWords(file=tmp_path / "none.txt"), "a")
