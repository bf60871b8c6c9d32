import pytest

from diptych.data.prompts import TEMPLATES
from diptych.errors import ConfigError
from diptych.eval.tasks import Task, find_task, names_of, task_data, tasks


def task(**values) -> Task:
    facts = {"name": "t", "title": "T", "kind": "classification", "metric": "accuracy"}
    return Task(**{**facts, "source": "s", "licence": "l", "obtain": "o", **values})


def test_names_of_tasks_and_their_folders_are_unique():
    names = [name for one in tasks() for name in (one.name, *one.aliases)]
    assert len(names) == len(set(names))
    assert all(find_task(name).name == one.name for one in tasks() for name in (one.name, *one.aliases))


def test_class_names_are_as_many_as_the_classes():
    for one in tasks():
        assert len(one.classnames) in (0, one.classes), one.name
        assert len(one.labels) in (0, one.classes), one.name


def test_a_task_is_found_in_any_spelling_and_a_wrong_name_gets_the_nearest():
    assert {find_task(name).name for name in ("cifar10", "CIFAR-10", "wds_cifar10", "vtab/cifar10")} == {"cifar10"}
    assert find_task("cifar10").templates == TEMPLATES["cifar"]
    with pytest.raises(ConfigError, match=r"cifar11 is not a task. Did you mean cifar10\?"):
        find_task("cifar11")


def test_data_is_found_under_any_of_its_names(tmp_path):
    assert task_data(find_task("caltech101"), tmp_path / "absent") is None
    assert task_data(find_task("caltech101"), tmp_path) is None
    (tmp_path / "vtab" / "caltech101").mkdir(parents=True)
    assert task_data(find_task("caltech101"), tmp_path) == tmp_path / "vtab" / "caltech101"
    (tmp_path / "wds_vtab-caltech101").mkdir()
    assert task_data(find_task("caltech101"), tmp_path) == tmp_path / "wds_vtab-caltech101"
    (tmp_path / "Caltech-101").mkdir()
    assert task_data(find_task("caltech101"), tmp_path) == tmp_path / "Caltech-101"


def test_class_names_go_by_what_the_data_calls_its_classes_and_not_by_position():
    fields = task(classnames=(("forest",), ("lake or sea", "water")), labels=("Forest", "SeaLake"), classes=2)
    assert names_of(fields, ["SeaLake", "Forest"]) == (("lake or sea", "water"), ("forest",))
    assert names_of(fields, ["sea lake", "Meadow"]) == (("lake or sea", "water"), ("Meadow",))
    assert names_of(fields, ["water", "forest"]) == (("lake or sea", "water"), ("forest",))
    assert names_of(fields, ["00001", "00000"]) == (("lake or sea", "water"), ("forest",))
    assert names_of(fields, ["1", "2"]) == (("1",), ("2",))  # no numbers from 0
    assert names_of(task(), ["1", "0"]) == (("1",), ("0",))
