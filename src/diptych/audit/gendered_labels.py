"""Gendered labels: which labels of a list the model gives to one of two groups more than to the other.

A picture has a label when the label's probability, among all of the list, reaches a threshold: CLIP, arXiv:2103.00020,
section 7.1, at 0.5 % and 4 %, and figure 18, the twenty labels that differ most by chi-squared. Letters: N, C.
"""

from collections.abc import Sequence

import numpy as np

from diptych.audit.groups import Subjects, keys_of, subjects
from diptych.audit.probes import PromptSet, read_probes
from diptych.errors import ConfigError
from diptych.eval.chapter import Chapter, Contrast, contrasts_of, share_of
from diptych.eval.features import ModelFeatures
from diptych.eval.result import Result
from diptych.measures.compare import Comparison, compare_shares
from diptych.measures.groups import chi_squared
from diptych.sets.grouped import GroupedImages

THRESHOLDS = (0.005, 0.04)
SHOWN = 20  # labels of each threshold that become results, as figure 18 shows them; contrasts are of all


def gendered_labels(
    features: ModelFeatures,
    pictures: GroupedImages,
    *,
    labels: Sequence[str] | None = None,
    prompts: Sequence[PromptSet] | None = None,
    by: str = "gender",
    between: tuple[str, str] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    sha256: str = "",
) -> Chapter:
    """How often each label is given to the pictures of two groups.

    Args:
        features: of the model.
        pictures: of people, with groups.
        labels: C of them; by default the occupations of `probes.toml`.
        prompts: by default those of `probes.toml`.
        by: the kind of groups.
        between: the two; needed where there are more, or to say which is first.
        thresholds: of a label's probability.
        sha256: of the set's bytes.

    Raises:
        DataError: no picture can be read.
        ConfigError: there is no such kind of groups, or there are not two groups, or a threshold is none.
    """
    shipped = read_probes()
    labels, prompts = labels or shipped.gendered_labels.labels, prompts or shipped.prompts
    if not thresholds or not all(0 < threshold < 1 for threshold in thresholds):
        raise ConfigError(f"thresholds must lie between 0 and 1. Got {', '.join(map(str, thresholds)) or 'none'}.")
    people = subjects(features, pictures, sha256=sha256)
    first, second = _two(people, by, between)
    members = people.members(by)
    told = members[first] | members[second]
    results: list[Result] = []
    named: list[tuple[str, Comparison]] = []
    statistics: list[str] = []
    for words in prompts:
        chances = features.probabilities(people.logits(labels, words)).numpy()  # [N, C]
        for threshold in thresholds:
            given = chances >= threshold
            tables = _tables(given, members[first], members[second])
            named += [
                (_name(label, first, second, threshold, words), compare_shares(*_counts(table)))
                for label, table in zip(labels, tables, strict=True)
            ]
            statistics += [f"chi-squared {table['chi-squared']:.1f}, p = {table['p']:.2g}" for table in tables]
            order = sorted(range(len(labels)), key=lambda number: -tables[number]["chi-squared"])
            results += [
                share_of(
                    keys_of(people, told),
                    given[told, number],
                    data=people.data,
                    case={"prompts": words.name, "threshold": f"{100 * threshold:g} %", "label": labels[number]},
                    prompts=words.of(labels),
                    numbers=_numbers(tables[number], first, second),
                    skipped=people.skipped,
                )
                for number in order[:SHOWN]
            ]
    contrasts = contrasts_of(named)
    return Chapter(
        name="gendered-labels",
        title="Gendered labels",
        question=f"Which labels does the model give to {first} and not to {second}, or the other way round?",
        sentences=_sentences(contrasts, statistics, labels, thresholds, prompts, first, second),
        results=tuple(results),
        contrasts=contrasts,
        not_measured=tuple(people.not_told([by])),
        notes=(
            "A label's probability is among those of this list alone: with other labels it is another.",
            f"The {SHOWN} labels that differ most by chi-squared stand in the table for each threshold; all were "
            "compared, by Fisher's exact test, which holds for small counts too, and corrected together.",
            "A threshold below one in the number of labels gives most labels to a model that cannot tell them apart.",
        ),
        conditions={
            "labels": str(len(labels)),
            "thresholds": ", ".join(f"{100 * threshold:g} %" for threshold in thresholds),
            "groups": f"{first} ({int(members[first].sum()):,}), {second} ({int(members[second].sum()):,})",
        },
    )


def _two(people: Subjects, by: str, between: tuple[str, str] | None) -> tuple[str, str]:
    there = list(people.members(by))
    if between is None:
        if len(there) != 2:
            raise ConfigError(f"{by} must have two groups to compare. It has {', '.join(there)}: name two of them.")
        return there[0], there[1]
    for group in between:
        if group not in there:
            raise ConfigError(f"{by} {group!r} must be a group of the set. Its groups: {', '.join(there)}.")
    if between[0] == between[1]:
        raise ConfigError(f"Two groups are compared. Got {between[0]!r} twice.")
    return between


def _tables(given: np.ndarray, first: np.ndarray, second: np.ndarray) -> list[dict[str, float]]:
    """Counts of each label, [N, C] bool, in both groups, [N] bool."""
    tables = []
    for column in given.T:
        counts = (int(column[first].sum()), int(first.sum()), int(column[second].sum()), int(second.sum()))
        statistic, p = chi_squared(*counts)
        names = ("first", "of first", "second", "of second")
        tables.append(dict(zip(names, counts, strict=True)) | {"chi-squared": statistic, "p": p})
    return tables


def _counts(table: dict[str, float]) -> tuple[int, int, int, int]:
    first, n_first, second, n_second = (int(table[name]) for name in ("first", "of first", "second", "of second"))
    return first, n_first, second, n_second


def _numbers(table: dict[str, float], first: str, second: str) -> dict[str, float]:
    """The shares of both groups."""
    return {first: table["first"] / table["of first"], second: table["second"] / table["of second"]}


def _name(label: str, first: str, second: str, threshold: float, words: PromptSet) -> str:
    return f"{label} at {100 * threshold:g} %: {second} against {first} ({words.name})"


def _sentences(
    contrasts: Sequence[Contrast],
    statistics: Sequence[str],
    labels: Sequence[str],
    thresholds: Sequence[float],
    prompts: Sequence[PromptSet],
    first: str,
    second: str,
) -> tuple[str, ...]:
    found = []
    starts = range(0, len(contrasts), len(labels))
    cases = [(words, threshold) for words in prompts for threshold in thresholds]
    for (words, threshold), start in zip(cases, starts, strict=True):
        those = slice(start, start + len(labels))
        own = zip(labels, contrasts[those], statistics[those], strict=True)
        real = [(f"{label} ({table})", one.comparison.difference) for label, one, table in own if one.is_significant]
        real.sort(key=lambda pair: -abs(pair[1]))
        to = {
            first: [label for label, difference in real if difference < 0],
            second: [label for label, difference in real if difference > 0],
        }
        which = "; ".join(f"to {group} {', '.join(some[:5])}" for group, some in to.items() if some)
        found.append(
            f"At {100 * threshold:g} % (prompts {words.name}) {len(real)} of {len(labels)} labels are given to one "
            f"group more than to the other (Holm){': ' + which if which else ''}."
        )
    return tuple(found)
