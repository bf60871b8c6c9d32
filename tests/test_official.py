import json

import numpy as np
import pytest
import scipy.io

from diptych.errors import DataError
from diptych.sets.official import training_folds
from diptych.sets.open import read_labelled
from toys import png


def write(root, files: dict[str, str]) -> None:
    """Texts, and pictures where the text is empty."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() or png("red"))


def found(folder, split: str = "test"):
    """Class names, and each picture's key and class; every picture opens."""
    data = read_labelled(folder, split=split)
    assert all(data.open(index).size == (4, 4) for index in range(len(data)))
    return data.classnames, dict(zip(data.keys, data.targets.tolist(), strict=True))


def test_food101(tmp_path):
    write(tmp_path / "food-101", {"meta/classes.txt": "apple_pie\nsushi\n", "meta/test.txt": "sushi/7\napple_pie/9\n"})
    write(tmp_path / "food-101", {"images/sushi/7.jpg": "", "images/apple_pie/9.jpg": "", "images/sushi/1.jpg": ""})
    assert found(tmp_path) == (("apple pie", "sushi"), {"sushi/7": 1, "apple_pie/9": 0})
    with pytest.raises(DataError, match=r"no split 'valid'. It has: test, train"):
        read_labelled(tmp_path, split="valid")
    with pytest.raises(DataError, match=r"train.txt cannot be read"):
        read_labelled(tmp_path, split="train")
    (tmp_path / "food-101" / "meta" / "test.txt").write_text("soup/7")
    with pytest.raises(DataError, match=r"must have 'soup' among its 2 classes"):
        read_labelled(tmp_path)


def test_folds_of_stl10_are_positions_in_its_training_pictures(tmp_path):
    with pytest.raises(DataError, match=r"has no folds"):
        training_folds(tmp_path)
    write(tmp_path / "stl10_binary", {"fold_indices.txt": "3 1 \n0 2 \n"})
    assert [fold.tolist() for fold in training_folds(tmp_path)] == [[3, 1], [0, 2]]
    write(tmp_path / "stl10_binary", {"fold_indices.txt": "3 x\n"})
    with pytest.raises(DataError, match=r"a fold a line. Not so"):
        training_folds(tmp_path)


def test_describable_textures(tmp_path):
    write(tmp_path / "dtd", {"labels/test1.txt": "dotted/d_1.jpg\n", "labels/val1.txt": "banded/b_1.jpg\n"})
    write(tmp_path / "dtd", {"images/dotted/d_1.jpg": "", "images/banded/b_1.jpg": ""})
    assert found(tmp_path) == (("banded", "dotted"), {"dotted/d_1.jpg": 1})
    assert found(tmp_path, "validation")[1] == {"banded/b_1.jpg": 0}


def test_sun397_has_names_of_two_parts(tmp_path):
    names = {
        "Partitions/ClassName.txt": "/a/abbey\n/a/apse/indoor\n",
        "Partitions/Testing_01.txt": "/a/apse/indoor/x.jpg",
    }
    write(tmp_path, names | {"a/apse/indoor/x.jpg": "", "a/abbey/y.jpg": ""})
    assert found(tmp_path) == (("abbey", "apse indoor"), {"a/apse/indoor/x.jpg": 1})


def test_aircraft_have_spaces_in_their_names(tmp_path):
    root = tmp_path / "fgvc-aircraft-2013b" / "data"
    write(
        root, {"variants.txt": "737-200\nBAE 146-200\n", "images_variant_test.txt": "0048 BAE 146-200\n0049 737-200\n"}
    )
    write(root, {"images/0048.jpg": "", "images/0049.jpg": ""})
    assert found(tmp_path) == (("737-200", "BAE 146-200"), {"0048": 1, "0049": 0})


def test_pets_count_breeds_from_one(tmp_path):
    lists = {
        "annotations/test.txt": "#ids\npug_2 2 2 1\n",
        "annotations/trainval.txt": "Maine_Coon_1 1 1 1\npug_9 2 2 1",
    }
    write(tmp_path, lists | {"images/pug_2.jpg": "", "images/pug_9.jpg": "", "images/Maine_Coon_1.jpg": ""})
    assert found(tmp_path) == (("Maine Coon", "pug"), {"pug_2": 1})
    assert found(tmp_path, "train")[1] == {"Maine_Coon_1": 0, "pug_9": 1}


def test_flowers_count_pictures_and_classes_from_one(tmp_path):
    scipy.io.savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[2, 1, 3]])})
    scipy.io.savemat(tmp_path / "setid.mat", {"tstid": np.array([[3, 1]]), "trnid": np.array([[2]]), "valid": [[9]]})
    write(tmp_path, {f"jpg/image_{n:05d}.jpg": "" for n in (1, 2, 3)})
    assert found(tmp_path) == (("0", "1", "2"), {"image_00003": 2, "image_00001": 1})
    assert found(tmp_path, "train")[1] == {"image_00002": 0}
    with pytest.raises(DataError, match=r"lists of the flowers. They do not fit"):
        read_labelled(tmp_path, split="validation")


def test_cars_count_classes_from_one(tmp_path):
    kinds = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
    (tmp_path / "devkit").mkdir()
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], dtype=object)
    scipy.io.savemat(tmp_path / "devkit" / "cars_meta.mat", {"class_names": names})
    for name, rows in (
        ("cars_test_annos_withlabels", [(1, 2, "00001.jpg"), (1, 1, "00002.jpg")]),
        ("devkit/cars_train_annos", [(1, 1, "00007.jpg")]),
    ):
        scipy.io.savemat(tmp_path / f"{name}.mat", {"annotations": np.array(rows, dtype=kinds)})
    write(tmp_path, {"cars_test/00001.jpg": "", "cars_test/00002.jpg": "", "cars_train/00007.jpg": ""})
    assert found(tmp_path) == (tuple(names), {"00001.jpg": 1, "00002.jpg": 0})
    assert found(tmp_path, "train")[1] == {"00007.jpg": 0}
    scipy.io.savemat(tmp_path / "cars_test_annos_withlabels.mat", {"other": 1})
    with pytest.raises(DataError, match=r"lists of Stanford Cars.*'annotations'"):
        read_labelled(tmp_path)


def test_traffic_signs_of_the_test_part_have_their_list_apart(tmp_path):
    write(tmp_path / "GTSRB", {f"Final_Test/Images/0000{n}.ppm": "" for n in (0, 1)})
    write(tmp_path, {"GTSRB/Final_Test/Images/GT-final_test.test.csv": "Filename;Width\n00000.ppm;9\n"})
    write(tmp_path, {"GT-final_test.csv": "Filename;Width;ClassId\n00000.ppm;9;16\n00001.ppm;9;1\n"})
    classnames, pictures = found(tmp_path)
    assert (len(classnames), pictures) == (43, {"00000.ppm": 16, "00001.ppm": 1})
    images = "GTSRB/Final_Training/Images"
    write(
        tmp_path,
        {f"{images}/00003/GT-00003.csv": "Filename;ClassId\n00000_0.ppm;3\n", f"{images}/00003/00000_0.ppm": ""},
    )
    assert found(tmp_path, "train")[1] == {"00003/00000_0.ppm": 3}


def test_clevr_is_told_by_the_number_of_things(tmp_path):
    scenes = [{"image_filename": f"{n}.png", "objects": [{}] * n} for n in (3, 10)]
    write(tmp_path / "CLEVR_v1.0", {"scenes/CLEVR_val_scenes.json": json.dumps({"scenes": scenes})})
    write(tmp_path / "CLEVR_v1.0", {"images/val/3.png": "", "images/val/10.png": ""})
    assert found(tmp_path) == (tuple(map(str, range(3, 11))), {"3.png": 0, "10.png": 7})


def test_tiny_imagenet_is_named_by_its_ids_and_measured_on_its_validation_pictures(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    write(root, {"wnids.txt": "n02124075\nn00004475\n", "words.txt": "n00004475\torganism, being\n"})
    write(root, {"val/val_annotations.txt": "val_0.JPEG\tn00004475\t0\t9\nval_1.JPEG\tn02124075\t0\t9\n"})
    write(root, {"val/images/val_0.JPEG": "", "val/images/val_1.JPEG": "", "test/images/test_0.JPEG": ""})
    write(root, {"train/n02124075/images/a_0.JPEG": "", "train/n00004475/images/b_0.JPEG": ""})
    names = ("Egyptian Mau", "organism")
    assert found(tmp_path, "val") == found(root, "validation") == (names, {"val_0.JPEG": 1, "val_1.JPEG": 0})
    assert found(tmp_path, "train") == (names, {"a_0.JPEG": 0, "b_0.JPEG": 1})
    with pytest.raises(DataError, match=r"no split 'test'. It has: train, val"):  # it has no classes
        read_labelled(root)


def test_memes_have_a_list_a_split(tmp_path):
    row = {"id": 1, "img": "img/1.png", "label": 1, "text": "x"}
    write(tmp_path, {"dev_seen.jsonl": json.dumps(row) + "\n", "img/1.png": "", "test.jsonl": '{"img": "img/1.png"}'})
    assert found(tmp_path, "validation") == (("0", "1"), {"img/1.png": 1})
    with pytest.raises(DataError, match=r"img and label in each line.*'label'"):
        read_labelled(tmp_path)


def test_names_beside_class_folders_go_by_the_order_of_the_folders(tmp_path):
    write(tmp_path, {"n01440764/a.JPEG": "", "n01443537/b.JPEG": "", "classnames.txt": "tench\ngoldfish\n"})
    assert found(tmp_path) == (("tench", "goldfish"), {"n01440764/a.JPEG": 0, "n01443537/b.JPEG": 1})
    (tmp_path / "classnames.txt").write_text("tench\n")
    with pytest.raises(DataError, match=r"a line for each class folder. It has 1, for 2"):
        read_labelled(tmp_path)
