from pathlib import Path

import pytest

from diptych.data.class_names import imagenet_names
from diptych.data.prompts import TEMPLATES
from diptych.errors import ConfigError, DataError
from diptych.eval.published_scores import published_score
from diptych.eval.tasks import Task, find_task, names_of, prompts_for, task_data, tasks


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
    fields = task(classnames=(("forest",), ("lake or sea", "water")), renamed={"SeaLake": ("lake or sea",)})
    assert names_of(fields, ["SeaLake", "Forest"]) == (("lake or sea", "water"), ("forest",))
    assert names_of(fields, ["sea lake", "Meadow"]) == (("lake or sea", "water"), ("Meadow",))
    assert names_of(fields, ["water", "forest"]) == (("lake or sea", "water"), ("forest",))
    assert names_of(fields, ["00001", "00000"]) == (("lake or sea", "water"), ("forest",))
    assert names_of(fields, ["1", "2"]) == (("1",), ("2",))  # no numbers from 0
    assert names_of(task(), ["1", "0"]) == (("1",), ("0",))


def test_imagenet_is_named_by_number_or_id_and_ids_without_names_are_refused():
    v2 = find_task("imagenet_v2")
    assert prompts_for(v2, [str(number) for number in range(1000)], None).names[134] == "crane bird"
    assert (
        prompts_for(None, ["tench"], None, naming="WordNet ids by their names").naming == "WordNet ids by their names"
    )
    hub = [f"{name}, Genus species" for name in imagenet_names().values()]
    hub[7] = "cock"  # CLIP says rooster
    assert prompts_for(find_task("imagenet"), hub, None).names == tuple(imagenet_names().values())
    assert prompts_for(find_task("imagenet"), hub[1:] + hub[:1], None).names[0] == "goldfish, Genus species"
    with pytest.raises(DataError, match="1 of 2 are WordNet ids"):
        prompts_for(None, ["n00004475", "tench"], None)


def test_numbers_for_names_are_said_but_where_the_table_says_that_they_are():
    assert "names are numbers (0, 1, ...)" in prompts_for(None, ["0", "1"], None).naming
    assert prompts_for(find_task("mnist"), ["0", "1"], None).naming == ""


def test_classes_that_are_called_alike_are_said():
    told = prompts_for(find_task("imagenet"), [str(number) for number in range(1000)], None)
    assert told.has_shared_names
    assert told.naming == (
        "missile, sunglasses are each the name of several classes, which tie: a tie counts against the model, and "
        '"top-1 by argmax" takes the first of them'
    )
    one = prompts_for(None, ["crane", "dog", "crane"], None)
    assert one.naming.startswith("crane is the name of several classes")
    assert prompts_for(None, ["crane", "cranes"], None).naming == ""
    assert not prompts_for(None, ["crane", "cranes"], None).has_shared_names


def test_names_of_the_sets_with_traps():
    assert names_of(find_task("eurosat"), ["AnnualCrop", "SeaLake"]) == (("annual crop land",), ("lake or sea",))
    assert names_of(find_task("fer2013"), [*"0123456"])[3] == ("happy", "smiling")
    assert names_of(find_task("fer2013"), ["surprise", "Sad"])[0] == ("surprised", "shocked", "spooked")
    assert names_of(find_task("gtsrb"), [f"{n:05d}" for n in range(43)])[14] == ("stop",)
    assert names_of(find_task("clevr"), ["10", "3"]) == (("10",), ("3",))  # how the released list begins
    assert names_of(find_task("ucf101"), ["ApplyEyeMakeup", "YoYo"]) == (("Apply Eye Makeup",), ("Yo Yo",))
    assert names_of(find_task("caltech101"), ["yin_yang", "sea horse"]) == (("yin and yang symbol",), ("sea horse",))


def test_the_table_holds_the_27_sets_of_the_paper_by_its_metrics():
    paper = [one for one in tasks() if "clip-27" in one.suites]
    assert (len(paper), len([one for one in paper if "kornblith-12" in one.suites])) == (27, 12)
    other = {one.name: one.metric for one in paper if one.metric != "accuracy"}
    assert other == {
        "fgvc_aircraft": "mean per class",
        "voc2007": "11-point mAP",
        "oxford_pets": "mean per class",
        "caltech101": "mean per class",
        "flowers102": "mean per class",
        "stl10": "mean of 10 folds",
        "ucf101": "mean of 3 splits",
        "kinetics700": "mean of top-1 and top-5",
        "hateful_memes": "ROC AUC",
    }
    assert len(tasks()) >= 40


def test_the_docs_say_how_many_tasks_there_are():
    page = Path(__file__).parents[1] / "docs" / "how-to" / "tasks.md"
    assert f"lists {len(tasks())} tasks" in page.read_text(encoding="utf-8")
    kinds = {one.kind for one in tasks()}
    assert all(f"| {kind} |" in page.read_text(encoding="utf-8") for kind in kinds)


def test_tasks_share_names_with_the_published_scores():
    paper = [one for one in tasks() if "clip-27" in one.suites]
    scores = {one.name: published_score("ViT-B-32.openai", one.name) for one in paper}
    assert [name for name, score in scores.items() if score is None] == []
    metrics = {"mean of 10 folds": "accuracy", "mean of 3 splits": "accuracy"}
    assert all(scores[one.name].metric == metrics.get(one.metric, one.metric) for one in paper)
