import pytest

from diptych.errors import DataError
from diptych.sets.multilabel import read_multilabel
from toys import png


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2007"
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    (root / "ImageSets" / "Main" / "cat_test.txt").write_text("000001  1\n000002 -1\n000003  0\n")
    (root / "ImageSets" / "Main" / "dog_test.txt").write_text("000001 -1\n000002  1\n000003  1\n")
    (root / "ImageSets" / "Main" / "dog_trainval.txt").write_text("000009  1\n")
    (root / "ImageSets" / "Main" / "test.txt").write_text("000001\n")
    for number in (1, 2, 3):
        (root / "JPEGImages" / f"{number:06d}.jpg").write_bytes(png("red"))
    return tmp_path


def test_a_picture_has_any_number_of_classes_and_some_do_not_count(voc):
    pictures = read_multilabel(voc)
    assert pictures.classnames == ("cat", "dog")
    assert pictures.keys == ("000001", "000002", "000003")
    assert pictures.targets.tolist() == [[True, False], [False, True], [False, True]]
    assert pictures.counted.tolist() == [[True, True], [True, True], [False, True]]
    assert pictures.open(2).size == (4, 4)


def test_what_is_not_voc_is_named(voc):
    with pytest.raises(DataError, match=r"no split 'val'. It has: test, trainval"):
        read_multilabel(voc, split="val")
    lists = voc / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    (lists / "cat_test.txt").write_text("000001  1\n")
    with pytest.raises(DataError, match=r"dog_test.txt must list the pictures of the other classes"):
        read_multilabel(voc)
    (lists / "cat_test.txt").write_text("000001  yes\n")
    with pytest.raises(DataError, match=r"1, 0 or -1 .*'000001  yes'"):
        read_multilabel(voc)
    with pytest.raises(DataError, match=r"ImageSets/Main and JPEGImages"):
        read_multilabel(lists)
