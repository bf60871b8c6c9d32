import json

import pytest
from PIL import Image

from diptych.errors import DataError
from diptych.sets.choices import read_choices


def test_sugarcrepe_has_one_file_a_kind_and_pictures_below(tmp_path):
    row = {"filename": "1.jpg", "caption": "a red cup", "negative_caption": "a blue cup"}
    (tmp_path / "swap_att.json").write_text(json.dumps({"0": row, "5": row | {"caption": "one red cup"}}))
    (tmp_path / "add_obj.json").write_text(json.dumps({"0": row | {"filename": "2.jpg"}}))
    (tmp_path / "val2017").mkdir()
    for name in "12":
        Image.new("RGB", (4, 4)).save(tmp_path / "val2017" / f"{name}.jpg")
    choices = read_choices(tmp_path)
    assert choices.kinds == ("add_obj", "swap_att", "swap_att")
    assert choices.keys == ("2.jpg", "1.jpg")  # each picture once
    assert choices.image_of.tolist() == [0, 1, 1]
    assert choices.right == ("a red cup", "a red cup", "one red cup")
    assert choices.open(1).size == (4, 4)


def test_captions_of_aro_are_about_a_part_of_the_picture(tmp_path):
    picture = Image.new("RGB", (8, 8), "red")
    picture.paste("blue", (2, 3, 6, 8))
    (tmp_path / "images").mkdir()
    picture.save(tmp_path / "images" / "1.png")
    box = {"bbox_x": 2, "bbox_y": 3, "bbox_w": 4, "bbox_h": 5}
    row = {"image_path": "1.png", "true_caption": "the blue thing", "false_caption": "the red thing", **box}
    (tmp_path / "visual_genome_attribution.json").write_text(json.dumps([row]))
    (tmp_path / "other.json").write_text("{}")
    choices = read_choices(tmp_path)
    assert (choices.right, choices.wrong) == (("the blue thing",), ("the red thing",))
    part = choices.open(0)
    assert part.size == (4, 5)
    assert part.getcolors() == [(20, (0, 0, 255))]
    (tmp_path / "visual_genome_relation.json").write_text("[]")
    with pytest.raises(DataError, match=r"one list of ARO. It has 2"):
        read_choices(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "It holds no row"), ("{", "cannot be read"), ('{"0": {"filename": "a"}}', "It lacks 'caption'")],
)
def test_a_wrong_list_is_named(tmp_path, content, message):
    with pytest.raises(DataError, match="It holds none"):
        read_choices(tmp_path)
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_choices(tmp_path)
