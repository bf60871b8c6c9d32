"""An audit as the numbers chapter of a model card: Markdown, with the metadata that Hugging Face reads."""

import json
from collections.abc import Iterator

from diptych.curate.card_markdown import escaped
from diptych.eval.chapter import Audit, Chapter
from diptych.eval.result import Result
from diptych.pages.audit import contrasts_table, not_measured, numbers_table, summary
from diptych.pages.page import PageTable

_SHOWN = 20  # rows of a table; the others stand in the JSON file


def audit_card(audit: Audit) -> str:
    """The card as text. Equal audits give equal texts.

    Its head is a `model-index`, as model cards have it: each number that its tables show, with data, metric and what
    was asked.
    """
    return "\n".join([*_metadata(audit), *_opening(audit), *(line for one in audit.chapters for line in _chapter(one)),
                      *_left_out(audit)]) + "\n"  # fmt: skip


def _metadata(audit: Audit) -> Iterator[str]:
    """YAML in which every text is one in JSON."""
    yield "---"
    yield "model-index:"
    yield f"- name: {json.dumps(audit.model.name)}"
    yield "  results:"
    for chapter in audit.chapters:
        for result in chapter.results[:_SHOWN]:
            yield from _result(chapter, result)
    yield "---"


def _result(chapter: Chapter, result: Result) -> Iterator[str]:
    asked = ", ".join((*result.case.values(), result.metric))
    yield "  - task:"
    yield "      type: zero-shot-image-classification"
    yield f"      name: {json.dumps(f'audit, {chapter.name}')}"
    yield "    dataset:"
    yield f"      type: {json.dumps(result.data.name)}"
    yield f"      name: {json.dumps(result.data.title)}"
    yield f"      split: {json.dumps(result.data.split)}"
    yield "    metrics:"
    yield f"    - type: {json.dumps(result.metric)}"
    yield f"      name: {json.dumps(asked)}"
    yield f"      value: {round(result.value, 4)}"


def _opening(audit: Audit) -> Iterator[str]:
    asked, machine = audit.conditions, audit.conditions.hardware
    yield ""
    yield "## Audit"
    yield ""
    yield from (f"- {escaped(sentence)}" for _, sentence in summary(audit))
    yield ""
    yield (
        f"Fingerprint {audit.model.fingerprint[:12]}, {asked.precision}, seed {asked.seed}, "
        f"{machine.get('cpu', 'hardware not known')}; "
        + ", ".join(f"{name} {version}" for name, version in asked.versions.items())
        + ". Intervals are 95 %; differences are corrected for their number in a chapter (Holm)."
    )


def _chapter(chapter: Chapter) -> Iterator[str]:
    yield ""
    yield f"### {escaped(chapter.title)}"
    yield ""
    yield escaped(chapter.question)
    yield ""
    yield from (f"- {escaped(sentence)}" for sentence in chapter.sentences)
    if chapter.results:
        yield from _table(numbers_table(chapter.results))
    if chapter.contrasts:
        yield from _table(contrasts_table(chapter.contrasts))
    if chapter.notes:
        yield ""
        yield escaped(" ".join(chapter.notes))


def _table(table: PageTable) -> Iterator[str]:
    yield ""
    yield f"| {' | '.join(map(escaped, table.header))} |"
    yield f"|{'---|' * len(table.header)}"
    yield from (f"| {' | '.join(map(escaped, row))} |" for row in table.rows[:_SHOWN])
    if len(table.rows) > _SHOWN:
        yield ""
        yield f"{len(table.rows) - _SHOWN:,} rows more are in the JSON file of the audit."


def _left_out(audit: Audit) -> Iterator[str]:
    left_out = not_measured(audit)
    if left_out:
        yield ""
        yield "### What was not measured"
        yield ""
        yield from (f"- {escaped(chapter)}: {escaped(why)}" for chapter, why in left_out)
