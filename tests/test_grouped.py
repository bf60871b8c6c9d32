import pytest

from diptych.errors import DataError
from diptych.sets.grouped import read_grouped
from oracles import paint


def test_a_table_of_ones_own_joins_a_labelled_set_by_key_or_file_name(tmp_path):
    data = tmp_path / "data"
    for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/3.png"):
        paint(data / name, 0)
    table = tmp_path / "groups.csv"
    table.write_text(
        "\ufeffkey,light,camera\ncat/1.png,dark,a\n3.png,bright,\n2,bright,b\n1.png,dark,b\n7.png,dark,a\n"
    )
    found = read_grouped(data, table=table)
    assert found.groups == {"light": ("dark", "bright", "", "bright"), "camera": ("a", "b", "", "")}
    assert found.left_out == {
        "rows of the table whose name several pictures have": 1,  # 1.png is a cat and a dog
        "rows of the table without a picture": 1,
        "pictures without a row in the table": 1,
    }
    assert found.labelled().classnames == ("cat", "dog")
    assert found.labelled().targets.tolist() == [0, 0, 1, 1]


def test_pictures_without_labels_get_their_classes_from_the_table(tmp_path):
    for name in ("x.png", "deep/y.png"):
        paint(tmp_path / name, 0)
    (tmp_path / "groups.csv").write_text("image,class,region\nx.png,stove,Africa\ny.png,door,Asia\n")
    found = read_grouped(tmp_path)  # the table lies in the folder
    assert found.groups == {"region": ("Asia", "Africa")}
    assert found.labelled().classnames == ("door", "stove")
    assert [found.classnames[target] for target in found.labelled().targets] == ["door", "stove"]


def test_folders_of_groups_hold_folders_of_classes(tmp_path):
    for name in ("bright/cat/1.png", "bright/dog/1.png", "dark/cat/1.png"):
        paint(tmp_path / name, 0)
    found = read_grouped(tmp_path)
    assert found.groups == {"group": ("bright", "bright", "dark")}
    assert found.keys == ("bright/cat/1.png", "bright/dog/1.png", "dark/cat/1.png")
    assert found.labelled().targets.tolist() == [0, 1, 0]


def test_what_is_not_there_or_does_not_fit_is_said(tmp_path):
    with pytest.raises(DataError, match=r"There is no such folder"):
        read_grouped(tmp_path / "nowhere")
    paint(tmp_path / "a.png", 0)
    with pytest.raises(DataError, match=r"must hold pictures with groups: FairFace"):
        read_grouped(tmp_path)
    (tmp_path / "groups.csv").write_text("name,age\na.png,3\n")
    with pytest.raises(DataError, match=r"must have a column key .* It has name, age"):
        read_grouped(tmp_path)
    (tmp_path / "groups.csv").write_text("key,age\nb.png,3\n")
    with pytest.raises(DataError, match=r"It names none of them"):
        read_grouped(tmp_path)
    with pytest.raises(DataError, match=r"must hold shards"):
        read_grouped(tmp_path, split="train")  # pictures without labels have no splits
    (tmp_path / "fairface_label_val.csv").write_text("file,age,gender,race\nval/1.jpg,3-9,Male,White\n")
    (tmp_path / "groups.csv").unlink()
    with pytest.raises(DataError, match=r"None can be used \(rows of the table without a picture: 1\)"):
        read_grouped(tmp_path)
