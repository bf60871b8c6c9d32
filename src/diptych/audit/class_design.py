"""Class design: how often people are called something else than people, and what one more label changes.

The labels compete for each picture, as in CLIP, arXiv:2103.00020, section 7.1 and tables 6 and 7: rates of what is
non-human or of crime, by group, and with "child" among the labels. Letters: N, C.
"""

from collections.abc import Sequence

import numpy as np
import torch

from diptych.audit.groups import Subjects, best, check_columns, keys_of, subjects
from diptych.audit.probes import ClassDesign, PromptSet, read_probes
from diptych.eval.chapter import Chapter, Contrast, Example, contrasts_of, said, share_of
from diptych.eval.features import ModelFeatures
from diptych.eval.result import Result
from diptych.measures.compare import Comparison, compare_correct, compare_shares
from diptych.sets.grouped import GroupedImages

AS_GIVEN = "as given"
EVERYBODY = "all"

Called = dict[tuple[str, str, str], np.ndarray]  # prompts, labels, category -> [N] bool


def class_design(
    features: ModelFeatures,
    pictures: GroupedImages,
    *,
    labels: ClassDesign | None = None,
    prompts: Sequence[PromptSet] | None = None,
    by: Sequence[str] | None = None,
    sha256: str = "",
    seed: int = 0,
) -> Chapter:
    """Which share of the pictures of each group gets a label of the categories that are counted.

    Args:
        features: of the model.
        pictures: of people, with groups.
        labels: by category; by default the paper's.
        prompts: by default those of `probes.toml`.
        by: kinds of groups; by default all of the set.
        sha256: of the set's bytes.
        seed: of intervals of paired differences.

    Raises:
        DataError: no picture can be read.
        ConfigError: the set has no groups, or not those.
    """
    shipped = read_probes()
    design, prompts = labels or shipped.class_design, prompts or shipped.prompts
    people = subjects(features, pictures, sha256=sha256)
    columns = check_columns(people, by)
    called = _called(people, design, prompts)
    results = _results(people, design, prompts, columns, called)
    contrasts = contrasts_of(_differences(people, design, prompts, columns, called, seed))
    return Chapter(
        name="class-design",
        title="Class design: who is called what",
        question="How often does the model give a picture of a person a label that is no person's, and to whom?",
        sentences=_sentences(results, contrasts, design, prompts),
        results=tuple(results),
        contrasts=contrasts,
        examples=_examples(people, design, prompts[0], columns, called),
        not_measured=(*people.not_told(columns), *_without_rest(people, columns)),
        notes=(
            "A rate hangs on the labels as much as on the model: with others, or one more, it is another.",
            "Groups are as annotators perceived them, not as people describe themselves.",
            "Each group is compared with all other pictures whose group is told.",
        ),
        conditions={"labels": str(len(design.labels)), "added": ", ".join(design.added) or "none"},
    )


def together(design: ClassDesign) -> str:
    """The name of all counted categories as one."""
    return " or ".join(design.counted)


def _called(people: Subjects, design: ClassDesign, prompts: Sequence[PromptSet]) -> Called:
    found: Called = {}
    for words in prompts:
        logits = people.logits((*design.labels, *design.added), words)
        sets = {AS_GIVEN: logits[:, : len(design.labels)]}
        if design.added:
            sets[_with(design)] = logits
        for which, part in sets.items():
            answer = best(part)
            for category in design.counted:
                found[words.name, which, category] = np.isin(answer, design.numbers(category))
            if len(design.counted) > 1:
                every = [found[words.name, which, category] for category in design.counted]
                found[words.name, which, together(design)] = np.logical_or.reduce(every)
    return found


def _with(design: ClassDesign) -> str:
    return f"with {', '.join(design.added)}"


def _results(
    people: Subjects, design: ClassDesign, prompts: Sequence[PromptSet], columns: Sequence[str], called: Called
) -> list[Result]:
    everybody = np.ones(len(people.keys), dtype=bool)
    groups = [(EVERYBODY, EVERYBODY, everybody)]
    groups += [(column, group, rows) for column in columns for group, rows in people.members(column).items()]
    by_name = {words.name: words for words in prompts}
    results = []
    for (name, which, category), happened in called.items():
        labels = design.labels if which == AS_GIVEN else (*design.labels, *design.added)
        own = sum(len(design.categories[one]) for one in design.counted if category in (one, together(design)))
        for column, group, rows in groups:
            results.append(
                share_of(
                    keys_of(people, rows),
                    happened[rows],
                    data=people.data,
                    case={"prompts": name, "labels": which, "called": category, "by": column, "group": group},
                    prompts=by_name[name].of(labels),
                    numbers={"chance": own / len(labels)},
                    skipped=people.skipped if group == EVERYBODY else {},
                )
            )
    return results


def _differences(
    people: Subjects,
    design: ClassDesign,
    prompts: Sequence[PromptSet],
    columns: Sequence[str],
    called: Called,
    seed: int,
) -> list[tuple[str, Comparison]]:
    """Each group against the rest, and each with the added labels against itself without."""
    found: list[tuple[str, Comparison]] = []
    for words in prompts:
        for column in columns:
            members = people.members(column)
            told = np.logical_or.reduce(list(members.values())) if members else np.zeros(0, dtype=bool)
            for group, rows in members.items():
                rest = told & ~rows
                if not rest.any():
                    continue
                for category in _categories(design):
                    happened = called[words.name, AS_GIVEN, category]
                    counts = (int(happened[rest].sum()), int(rest.sum()), int(happened[rows].sum()), int(rows.sum()))
                    name = f"called {category}: {column} {group} against the rest ({words.name})"
                    found.append((name, compare_shares(*counts)))
        if design.added:
            before = torch.tensor(called[words.name, AS_GIVEN, together(design)])
            after = torch.tensor(called[words.name, _with(design), together(design)])
            parts = {EVERYBODY: np.ones(len(people.keys), dtype=bool)}
            parts |= {f"{column} {group}": rows for column in columns for group, rows in people.members(column).items()}
            for part, rows in parts.items():
                name = f"called {together(design)}: {_with(design)} against {AS_GIVEN}, {part} ({words.name})"
                found.append((name, compare_correct(before[rows], after[rows], seed=seed)))
    return found


def _categories(design: ClassDesign) -> tuple[str, ...]:
    return (*design.counted, together(design)) if len(design.counted) > 1 else design.counted


def _sentences(
    results: Sequence[Result], contrasts: Sequence[Contrast], design: ClassDesign, prompts: Sequence[PromptSet]
) -> tuple[str, ...]:
    first = [
        result
        for result in results
        if result.case["prompts"] == prompts[0].name
        and result.case["labels"] == AS_GIVEN
        and result.case["called"] == together(design)
    ]
    everybody = next(result for result in first if result.case["group"] == EVERYBODY)
    groups = [result for result in first if result.case["group"] != EVERYBODY and result.n > 1]
    found = [f"Of all pictures of people {said(everybody)} are called {together(design)}."]
    if groups:
        most, least = max(groups, key=lambda one: one.value), min(groups, key=lambda one: one.value)
        found[0] = (
            f"{found[0][:-1]}; most often those of {_group(most)}, {said(most)}, least often those of {_group(least)}, "
            f"{said(least)}."
        )
    for words in prompts:
        for result in results:
            case = result.case
            if case["prompts"] == words.name and case["group"] == EVERYBODY and case["called"] == together(design):
                found.append(f"Labels {case['labels']}, prompts {words.name}: {said(result)}.")
    rest = [contrast for contrast in contrasts if "against the rest" in contrast.name]
    real = [contrast for contrast in rest if contrast.is_significant]
    found.append(f"{len(real)} of {len(rest)} differences between a group and the rest are more than chance (Holm).")
    found += [_difference(contrast) for contrast in sorted(real, key=lambda one: one.corrected)[:5]]
    added = [contrast for contrast in contrasts if f", {EVERYBODY} (" in contrast.name]
    return (*found, *map(_difference, added))


def _group(result: Result) -> str:
    return f"{result.case['by']} {result.case['group']}"


def _difference(contrast: Contrast) -> str:
    found = contrast.comparison
    low, high = 100 * found.interval.low, 100 * found.interval.high
    return (
        f"{contrast.name}: {100 * found.b:.1f} % against {100 * found.a:.1f} % ({low:+.1f} to {high:+.1f} points, "
        f"p = {contrast.corrected:.2g} after Holm)."
    )


def _without_rest(people: Subjects, columns: Sequence[str]) -> list[str]:
    return [
        f"{column} has one group alone, which cannot be compared with others."
        for column in columns
        if len(people.members(column)) == 1
    ]


def _examples(
    people: Subjects, design: ClassDesign, words: PromptSet, columns: Sequence[str], called: Called
) -> tuple[Example, ...]:
    rows = np.flatnonzero(called[words.name, AS_GIVEN, together(design)]).tolist()
    own = {column: people.column(column) for column in columns}
    captions = []
    for row in rows:
        which = [one for one in design.counted if called[words.name, AS_GIVEN, one][row]]
        told = ", ".join(own[column][row] for column in columns if own[column][row])
        captions.append(f"{told}: called {which[0]}")
    return people.examples(rows, captions)
