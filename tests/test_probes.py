import pytest

from diptych.audit.probes import read_probes
from diptych.errors import ConfigError, DataError


def test_the_words_that_ship_are_the_papers_and_two_prompt_sets():
    probes = read_probes()
    design = probes.class_design
    assert {name: len(labels) for name, labels in design.categories.items()} == {
        "people": 14, "non-human": 4, "crime-related": 3
    }  # fmt: skip
    assert (design.counted, design.added) == (("non-human", "crime-related"), ("child",))
    assert len({words.name for words in probes.prompts}) == len({words.templates for words in probes.prompts}) == 2
    assert len(probes.gendered_labels.labels) == 60


def test_the_labels_of_a_category_are_numbered_in_the_order_of_all():
    design = read_probes().class_design
    assert [design.labels[number] for number in design.numbers("crime-related")] == list(
        design.categories["crime-related"]
    )


def test_a_file_of_ones_own_replaces_what_it_names_alone(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[gendered_labels]\nlabels = ["baker", "judge"]\n')
    probes = read_probes(file)
    assert probes.gendered_labels.labels == ("baker", "judge")
    assert probes.class_design == read_probes().class_design


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[class_design]\ncounted = ["robot"]\n[class_design.categories]\nrobots = ["a"]\n',
            r"'?robot'? is not .* robots",
        ),
        ('[class_design]\ncounted = []\n[class_design.categories]\nrobots = ["a"]\n', r"must name a category"),
        ('[gendered_label]\nlabels = ["a"]\n', r"gendered_label is not an option. Did you mean gendered_labels"),
    ],
)
def test_a_file_that_is_wrong_is_told_what_is(tmp_path, text: str, message: str):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_probes(file)


def test_labels_and_templates_are_checked(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[gendered_labels]\nlabels = ["judge", "judge"]\n')
    with pytest.raises(DataError, match=r"labels must differ"):
        read_probes(file)
    file.write_text('[[prompts]]\nname = "a"\ntemplates = ["no gap"]\n')
    with pytest.raises(DataError, match=r"must hold one"):
        read_probes(file)
