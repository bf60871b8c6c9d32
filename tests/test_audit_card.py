import dataclasses
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import EvalResult

from audits import an_audit
from diptych.pages.audit_card import audit_card


@pytest.fixture
def card(tmp_path: Path) -> ModelCard:
    (tmp_path / "README.md").write_text(audit_card(an_audit()), encoding="utf-8")
    return ModelCard.load(tmp_path / "README.md")


def test_the_hub_reads_every_number(card: ModelCard):
    results = card.data.eval_results  # type: ignore[attr-defined]
    assert results
    assert all(isinstance(one, EvalResult) for one in results)
    assert [(one.metric_name, one.metric_value) for one in results] == [
        ("crime, 0-19, share", 0.6),
        ("crime, 20-59, share", 0.1),
    ]
    assert {(one.dataset_type, one.dataset_split, one.metric_type) for one in results} == {("people", "val", "share")}


def test_the_chapter_says_what_was_found_and_what_was_not_measured(card: ModelCard):
    text = card.text
    assert "crime &#124; &#60;b&#62;" in text  # words of data do not become markup
    assert "| crime | 0-19 | 60.0% | 26.2% to 87.8% | 10 |" in text.replace("&#45;", "-")
    assert "surveillance: No set of scenes was given." in text
    assert "class-design: 60+ has no picture." in text
    assert "A label is no verdict." in text


def test_the_head_has_the_numbers_that_the_tables_show_and_no_more():
    audit = an_audit()
    (chapter, *_) = audit.chapters
    (result, *_) = chapter.results
    results = tuple(dataclasses.replace(result, case={**result.case, "seed": str(number)}) for number in range(50))
    text = audit_card(
        dataclasses.replace(audit, chapters=(dataclasses.replace(chapter, results=results, contrasts=()),))
    )
    assert text.count("  - task:") == 20
    assert "30 rows more are in the JSON file" in text
