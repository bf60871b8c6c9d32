"""Accuracy by group: region and income, skin tone, light, camera, whatever a table tells of the pictures of a set.

The worst group and the gap are what DataComp, arXiv:2304.14108, reports of GeoDE (top-1, worst region) and of Dollar
Street (top-5, worst quarter of incomes). Letters: N, C, k.
"""

from collections.abc import Sequence

import numpy as np
import torch

from diptych.audit.groups import Subjects, best, check_columns, keys_of, subjects
from diptych.audit.probes import PromptSet
from diptych.eval.chapter import Chapter, Contrast, Example, contrasts_of, said, share_of
from diptych.eval.features import ModelFeatures
from diptych.eval.measure import prompts_of, task_of
from diptych.eval.result import Result
from diptych.eval.tasks import Prompts
from diptych.measures.compare import compare_shares
from diptych.measures.groups import gap_of_groups
from diptych.measures.metrics import top_k_correct
from diptych.sets.grouped import GroupedImages

EVERYBODY = "all"
_BARE = PromptSet(name="bare", templates=("{}",))


def by_group(
    features: ModelFeatures,
    pictures: GroupedImages,
    *,
    by: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    sha256: str = "",
    seed: int = 0,
) -> Chapter:
    """Zero-shot accuracy of each group, top-1 and top-5, with the set's prompts and with the bare names.

    Args:
        features: of the model.
        pictures: with classes and groups.
        by: kinds of groups; by default all of the set.
        templates: prompt templates; by default by the rule of `prompts_for`.
        sha256: of the set's bytes.
        seed: of the gaps.

    Raises:
        DataError: no picture can be read, or one has no class.
        ConfigError: the set has no groups, or not those.
    """
    labelled = pictures.labelled()
    people = subjects(features, pictures, sha256=sha256)
    columns = check_columns(people, by)
    targets = torch.tensor(labelled.targets[list(people.kept)])
    usual = prompts_of(labelled, task_of(labelled.name, "classification"), templates)
    bare = Prompts(templates=_BARE.templates, classnames=usual.classnames, labels=usual.labels, source="the bare name")
    wordings = {"usual": usual} if usual.templates == _BARE.templates else {"usual": usual, "bare": bare}
    correct: dict[tuple[str, str], np.ndarray] = {}
    answers = np.zeros(0, dtype=np.int64)
    for name, words in wordings.items():
        weights = features.class_weights(words.classnames, words.templates)
        logits = features.logits_per_image(people.image_features.to(weights), weights).cpu()
        for k in (1, 5) if len(words.labels) > 5 else (1,):
            correct[name, f"top-{k}"] = top_k_correct(logits, targets, k).numpy()
        answers = best(logits) if name == "usual" else answers
    results = _results(people, columns, correct, wordings, seed)
    contrasts = _contrasts(people, columns, correct)
    return Chapter(
        name="by-group",
        title="Accuracy by group",
        question="Does the model recognise things as well for one group as for another?",
        sentences=_sentences(results, contrasts, columns),
        results=tuple(results),
        contrasts=contrasts,
        examples=_examples(people, columns, correct["usual", "top-1"], targets.numpy(), answers, usual),
        not_measured=tuple(people.not_told(columns)),
        notes=(
            "Of several groups one is always the worst: the gap is read beside what chance makes of groups this large.",
            "Groups may differ in their classes: then the gap is of classes as well.",
            "Groups of one picture have an interval, and are not taken for worst or best.",
        ),
    )


def _results(
    people: Subjects,
    columns: Sequence[str],
    correct: dict[tuple[str, str], np.ndarray],
    wordings: dict[str, Prompts],
    seed: int,
) -> list[Result]:
    results = []
    for (name, which), right in correct.items():
        for column in columns:
            members = people.members(column)
            told = np.logical_or.reduce(list(members.values())) if members else np.zeros(len(right), dtype=bool)
            parts = {EVERYBODY: told} | members
            numbers = _gap(right, members, seed)
            results += [
                share_of(
                    keys_of(people, rows),
                    right[rows],
                    data=people.data,
                    case={"prompts": name, "answers": which, "by": column, "group": group},
                    prompts=wordings[name],
                    numbers=numbers if group == EVERYBODY else {},
                    skipped=people.skipped if group == EVERYBODY else {},
                )
                for group, rows in parts.items()
                if rows.any()
            ]
    return results


def _gap(right: np.ndarray, members: dict[str, np.ndarray], seed: int) -> dict[str, float]:
    """What there is to say of the groups of two pictures and more; nothing where fewer than two are. All are shares."""
    large = {group: rows for group, rows in members.items() if rows.sum() > 1}
    if len(large) < 2:
        return {}
    number = np.full(len(right), -1)
    for index, rows in enumerate(large.values()):
        number[rows] = index
    gap = gap_of_groups(right, number, seed=seed)
    return {
        "worst group": min(float(right[rows].mean()) for rows in large.values()),
        "mean of groups": float(np.mean([right[rows].mean() for rows in large.values()])),
        "gap": gap.value,
        "gap low": gap.interval.low,
        "gap high": gap.interval.high,
        "gap by chance": gap.by_chance,
        "as far apart by chance": gap.p_value,
    }


def _contrasts(
    people: Subjects, columns: Sequence[str], correct: dict[tuple[str, str], np.ndarray]
) -> tuple[Contrast, ...]:
    """Each group against the rest."""
    named = []
    for (name, which), right in correct.items():
        for column in columns:
            members = people.members(column)
            for group, rows in members.items():
                rest = np.logical_or.reduce(list(members.values())) & ~rows
                if rest.any():
                    counts = (int(right[rest].sum()), int(rest.sum()), int(right[rows].sum()), int(rows.sum()))
                    title = f"{which}: {column} {group} against the rest ({name})"
                    named.append((title, compare_shares(*counts)))
    return contrasts_of(named)


def _sentences(results: Sequence[Result], contrasts: Sequence[Contrast], columns: Sequence[str]) -> tuple[str, ...]:
    found = []
    wordings = dict.fromkeys((one.case["prompts"], one.case["answers"]) for one in results)
    for name, which in wordings:
        for column in columns:
            own = [
                one
                for one in results
                if (one.case["prompts"], one.case["answers"], one.case["by"]) == (name, which, column)
            ]
            large = [one for one in own if one.case["group"] != EVERYBODY and one.n > 1]
            gaps = next((one.numbers for one in own if one.case["group"] == EVERYBODY), {})
            if not gaps:
                continue
            worst, most = min(large, key=lambda one: one.value), max(large, key=lambda one: one.value)
            numbers = {key: 100 * value for key, value in gaps.items()}
            found.append(
                f"{which} by {column} (prompts {name}): worst {worst.case['group']}, {said(worst)}; best "
                f"{most.case['group']}, {said(most)}. The gap is {numbers['gap']:.1f} points "
                f"({numbers['gap low']:.1f} to {numbers['gap high']:.1f}); groups of these sizes that do not differ "
                f"lie {numbers['gap by chance']:.1f} apart (p = {gaps['as far apart by chance']:.2g})."
            )
    real = sum(contrast.is_significant for contrast in contrasts)
    if contrasts:
        found.append(
            f"{real} of {len(contrasts)} differences between a group and the rest are more than chance (Holm)."
        )
    return tuple(found) or ("No two groups have two pictures each: there is nothing to compare.",)


def _examples(
    people: Subjects,
    columns: Sequence[str],
    right: np.ndarray,
    targets: np.ndarray,
    answers: np.ndarray,
    words: Prompts,
) -> tuple[Example, ...]:
    own = {column: people.column(column) for column in columns}
    rows = np.flatnonzero(~right).tolist()
    captions = [
        f"{', '.join(own[column][row] for column in columns if own[column][row])}: {words.names[targets[row]]}, "
        f"answered {words.names[answers[row]]}"
        for row in rows
    ]
    return people.examples(rows, captions)
