import json
from pathlib import Path

import numpy as np
import pytest

from diptych.errors import DataError
from diptych.sets.group_tables import NO_PICTURE, UNKNOWN, age_band, is_geode, read_table
from diptych.sets.grouped import GroupedImages, read_grouped
from diptych.sets.open import read_labelled
from toys import png


def write(root, files: dict[str, str]) -> None:
    """Texts, and pictures where the text is empty."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() or png("red"))


def groups_of(data: GroupedImages) -> dict[str, dict[str, str]]:
    """By key; every picture opens."""
    assert all(data.open(index).size == (4, 4) for index in range(len(data)))
    return {key: {name: told[row] for name, told in data.groups.items()} for row, key in enumerate(data.keys)}


FAIRFACE = """file,age,gender,race,service_test
val/1.jpg,3-9,Male,Latino_Hispanic,True
val/2.jpg,more than 70,Female,East Asian,False
val/3.jpg,20-29,Female,Martian,False
val/4.jpg,20-29,,Black,False
val/9.jpg,20-29,Male,Black,False
"""


def test_fairface_gives_age_gender_and_race_and_counts_what_it_cannot_use(tmp_path):
    write(tmp_path, {"fairface_label_val.csv": FAIRFACE, **{f"val/{n}.jpg": "" for n in (1, 2, 3, 4)}})
    data = read_grouped(tmp_path)
    assert groups_of(data) == {
        "val/1.jpg": {"age": "3-9", "gender": "Male", "race": "Latino Hispanic"},
        "val/2.jpg": {"age": "70+", "gender": "Female", "race": "East Asian"},
        "val/3.jpg": {"age": "20-29", "gender": "Female", "race": ""},
        "val/4.jpg": {"age": "20-29", "gender": "", "race": "Black"},
    }
    assert read_grouped(tmp_path, split="val").keys == data.keys
    assert data.left_out == {NO_PICTURE: 1, UNKNOWN: 1}  # an empty cell is no unknown value
    assert data.classnames == ("Female", "Male")
    assert data.targets is not None
    assert data.targets.tolist() == [1, 0, 0, -1]
    with pytest.raises(DataError, match=r"a class for each picture"):
        data.labelled()
    with pytest.raises(DataError, match=r"fairface_label_train.csv"):
        read_grouped(tmp_path, split="train")


def test_fairface_is_also_a_labelled_set_of_those_whose_gender_is_told(tmp_path):
    write(tmp_path, {"fairface_label_val.csv": FAIRFACE, **{f"val/{n}.jpg": "" for n in (1, 2, 3, 4)}})
    labelled = read_labelled(tmp_path)
    assert labelled.classnames == ("Female", "Male")
    assert dict(zip(labelled.keys, labelled.targets.tolist(), strict=True)) == {
        "val/1.jpg": 1, "val/2.jpg": 0, "val/3.jpg": 0
    }  # fmt: skip


def test_utkface_reads_names_and_counts_the_broken_ones(tmp_path):
    names = [
        "26_0_1_20170116174525125.jpg.chip.jpg",
        "1_1_4_20170109150557335.jpg.chip.jpg",
        "39_1_20170116174525125.jpg.chip.jpg",  # as three of the real archive
        "61_3_2_20170109142408075.jpg.chip.jpg",
        "53__0_20170116184028385.jpg",
    ]
    write(tmp_path / "UTKFace", dict.fromkeys(names, ""))
    data = read_grouped(tmp_path)
    assert list(groups_of(data).values()) == [
        {"age": "0-2", "gender": "Female", "race": "Other"},
        {"age": "20-29", "gender": "Male", "race": "Black"},
        {"age": "60-69", "gender": "", "race": "Asian"},
    ]
    assert data.left_out == {"names in which a field is missing": 2, UNKNOWN: 1}
    assert read_labelled(tmp_path).targets.tolist() == [0, 1]


def test_bands_of_age_meet_without_a_gap():
    bands = [age_band(years) for years in (0, 2, 3, 9, 10, 19, 20, 59, 60, 69, 70, 116)]
    assert bands == ["0-2"] * 2 + ["3-9"] * 2 + ["10-19"] * 2 + ["20-29", "50-59"] + ["60-69"] * 2 + ["70+"] * 2


def test_phase_takes_pictures_of_one_annotated_person(tmp_path):
    def person(**told: str) -> dict:
        return {"region": [0, 0, 4, 4], "annotations": told}

    one = person(age="young", gender="female", skintone="darker", ethnicity="east_asian", emotion="neutral")
    table = {
        "a.jpg": {"caption": "a person", "person0": one},
        "b.jpg": {"caption": "two", "person0": one, "person1": one},
        "c.jpg": {"caption": "unclear", "person0": person(age="unsure", gender="disagreement", skintone="lighter")},
    }
    write(tmp_path, {"phase_gcc_val_regions_20221101.json": json.dumps(table)})
    write(tmp_path / "phase_images", dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), ""))
    data = read_grouped(tmp_path)
    assert groups_of(data) == {
        "a.jpg": {"age": "young", "gender": "female", "skintone": "darker", "ethnicity": "east asian"},
        "c.jpg": {"age": "", "gender": "", "skintone": "lighter", "ethnicity": ""},
    }
    assert data.targets is None
    assert data.left_out == {"pictures that show not one annotated person": 1}


def test_dollar_street_has_topics_regions_and_quarters_of_incomes(tmp_path):
    incomes = (30, 90, 300, 900, 1000, 9000)
    rows = [
        f'{n},Togo,af,"assets/{n}.jpg","[\'{"stoves" if n % 2 else "front_doors"}\']",{income}'
        for n, income in enumerate(incomes)
    ]
    rows.append("6,Togo,af,assets/6.jpg,\"['stoves', 'kitchens']\",unknown")
    table = "\n".join(["id,country.name,region.id,imageRelPath,topics,income", *rows])
    write(tmp_path, {"images_v2_imagenet_test.csv": table, **{f"assets/{n}.jpg": "" for n in range(7)}})
    data = read_grouped(tmp_path)
    assert data.classnames == ("front doors", "stoves")
    assert set(data.groups) == {"region", "country", "income"}
    edges = np.quantile(incomes, [0.25, 0.5, 0.75])
    quarters = ("lowest quarter", "second quarter", "third quarter", "highest quarter")
    assert data.groups["income"] == (*(quarters[int((income > edges).sum())] for income in incomes), "")
    assert data.left_out == {"pictures of several topics, of which the first counts": 1}
    assert read_labelled(tmp_path).targets.tolist() == [0, 1, 0, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ("header", "row"),
    [("object,region,ip_country,file_path", "hand_soap,Africa,Togo,Togo_1.jpg"),
     ("script_name,region,ip_country,file_name", "hand_soap,Africa,Togo,Togo_1.jpg")],
)  # fmt: skip
def test_geode_reads_both_of_its_tables(tmp_path, header: str, row: str):
    write(tmp_path / "geode", {"index.csv": f"{header}\n{row}\n", "images/001.hand_soap/Togo_1.jpg": ""})
    data = read_grouped(tmp_path)
    assert groups_of(data) == {"Togo_1.jpg": {"region": "Africa", "country": "Togo"}}
    assert read_labelled(tmp_path).classnames == ("hand soap",)


def test_another_index_beside_class_folders_is_not_taken_for_geode(tmp_path):
    write(tmp_path, {"index.csv": "file,who\nx,y\n", "cat/1.jpg": "", "dog/1.jpg": ""})
    assert not is_geode(tmp_path / "index.csv")
    assert read_labelled(tmp_path).classnames == ("cat", "dog")


def test_tables_say_what_they_lack(tmp_path):
    write(tmp_path, {"a.csv": "file,age\n1.jpg,3\n", "b.csv": "file,age\n"})
    with pytest.raises(DataError, match=r"a.csv must have rows with columns file, race. It lacks race"):
        read_table(tmp_path / "a.csv", ("file", "race"))
    with pytest.raises(DataError, match=r"b.csv must have rows with columns file. It has none"):
        read_table(tmp_path / "b.csv", ("file",))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_table_is_read_however_a_spreadsheet_parts_its_cells(separator: str, tmp_path: Path):
    table = tmp_path / "groups.csv"
    table.write_text(f"key{separator}tone\n0.jpg{separator}light\n", encoding="utf-8-sig")
    assert read_table(table) == [{"key": "0.jpg", "tone": "light"}]


def test_a_cell_without_end_is_a_sentence(tmp_path: Path):
    (tmp_path / "groups.csv").write_text("key,tone\n0.jpg," + "a" * 300_000 + "\n")
    with pytest.raises(DataError, match="cannot be read: field larger"):
        read_table(tmp_path / "groups.csv")
