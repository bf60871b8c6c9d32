"""Accuracy as pictures get worse: noise, blur, light, blocks and bends at five severities, as ImageNet-C has them.

Source: Hendrycks & Dietterich, arXiv:1903.12261. What is done to pictures says `diptych.sets.shifts`; weather is left
out. Letters: n pictures, K corruptions, S severities.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diptych.audit.answers import PROMPT_SETS, Answers, Subject, example, few, subject_of, weights_of
from diptych.eval.chapter import Chapter, contrasts_of, mean_of, said, share_of
from diptych.eval.features import ModelFeatures
from diptych.eval.result import Result
from diptych.eval.tasks import Prompts
from diptych.measures.compare import Comparison, compare_correct
from diptych.sets.labelled import LabelledImages
from diptych.sets.shifts import SEVERITIES, shift

LEVELS = (1, 2, 3, 4, 5)
_SHORTEST = 224  # px: the severities were set for it, so smaller pictures are enlarged first


def corruptions(features: ModelFeatures, data: LabelledImages, *, pictures: int = 100, seed: int = 0) -> Chapter:
    """Each picture under each corruption at each severity.

    Args:
        features: of the model.
        data: labelled pictures.
        pictures: how many are drawn; each is looked at sixty times.
        seed: of the pictures, the noises and the intervals.

    Raises:
        DataError: no picture can be read, or all are of one class.
    """
    subject = subject_of(data, pictures, seed=seed)
    clean = features.pictures(subject.pictures)
    shown = {
        (kind, level): subject.shown(features, partial(_corrupted, kind=kind, level=level, seed=seed))
        for kind in SEVERITIES
        for level in LEVELS
    }
    results: list[Result] = []
    named: list[tuple[str, Comparison]] = []
    fallen: list[tuple[str, Tensor]] = []  # right as they are, wrong at severity 3
    for prompts, templates in PROMPT_SETS.items():
        told = subject.prompts(templates)
        weights = weights_of(features, told)
        before = subject.answers(clean, weights)
        right = torch.stack([subject.answers(found, weights).correct for found in shown.values()])
        right = right.view(len(SEVERITIES), len(LEVELS), -1)  # [K, S, n]
        results += _of_prompts(subject, told, before, right, clean.skipped, prompts, seed)
        for number, kind in enumerate(SEVERITIES):
            title = f"{kind}, severity 3, against the picture as it is: {prompts}"
            named.append((title, compare_correct(before.correct, right[number, 2], seed=seed)))
            fallen.append((kind, before.correct & ~right[number, 2]))
    return Chapter(
        name="corruptions",
        title="Worse and worse pictures",
        question="How much of its accuracy is left when pictures are noisy, blurred, dark or bent?",
        sentences=tuple(_sentence(results, prompts) for prompts in PROMPT_SETS),
        results=tuple(results),
        headline={"shown": "all corruptions", "severity": "1 to 5"},
        contrasts=contrasts_of(named),
        examples=tuple(
            example(
                subject.pictures.keys[clean.kept[row]],
                f"{subject.names[int(subject.pictures.targets[clean.kept[row]])][0]}, no longer named: {kind}",
                _corrupted(subject.pictures.open(clean.kept[row]), clean.kept[row], kind=kind, level=3, seed=seed),
            )
            for kind, rows in fallen[: len(SEVERITIES)]
            for row in few(rows)[:1]
        ),
        notes=(
            "Means are over corruptions, not over what a camera does: look at the one that your pictures have.",
            "A mean corruption error as ImageNet-C's, relative to AlexNet, needs AlexNet on the same pictures.",
        ),
        conditions=subject.conditions | {
            "corruptions": ", ".join(SEVERITIES), "left out": "snow, frost, fog and glass",
            "enlarged": f"pictures with a side below {_SHORTEST} px, to that",
        },
    )  # fmt: skip


def _corrupted(picture: Image.Image, index: int, *, kind: str, level: int, seed: int) -> Image.Image:
    """The same noise for the same picture each time."""
    scale = max(1.0, _SHORTEST / min(picture.size))
    large = picture.resize([round(scale * side) for side in picture.size], Image.Resampling.BICUBIC)
    return shift(large, kind, severity=level, rng=np.random.default_rng([seed, index, *kind.encode()]))


def _of_prompts(
    subject: Subject, told: Prompts, before: Answers, right: Tensor, skipped: Mapping[str, int], prompts: str, seed: int
) -> Iterator[Result]:
    """The picture as it is, all corruptions together, each severity, each corruption.

    Args:
        subject: the pictures.
        told: to the model.
        before: answers to the pictures as they are.
        right: [K, S, n] bool, under each corruption.
        skipped: pictures that cannot be read, by cause.
        prompts: what `told` is called.
        seed: of the intervals.
    """
    case = {"shown": "as it is", "severity": "", "prompts": prompts}
    yield share_of(before.keys, before.correct, data=subject.data, prompts=told, skipped=skipped, case=case)
    for what, severity, some in [
        ("all corruptions", "1 to 5", right),
        *(("all corruptions", str(level), right[:, level - 1]) for level in LEVELS),
        *((kind, "1 to 5", right[number]) for number, kind in enumerate(SEVERITIES)),
    ]:
        curve = right.double().mean(dim=(0, 2)) if some is right else some.double().mean(dim=1)
        numbers = {f"severity {level}": curve[level - 1].item() for level in LEVELS} if severity == "1 to 5" else {}
        # One row a picture, the mean of what was done to it: what hangs together is drawn together.
        each = some.double().flatten(end_dim=-2).mean(dim=0)
        case = {"shown": what, "severity": severity, "prompts": prompts}
        yield mean_of(before.keys, each, data=subject.data, prompts=told, case=case, numbers=numbers, skipped=skipped,
                      seed=seed)  # fmt: skip


def _sentence(results: Sequence[Result], prompts: str) -> str:
    mine = [one for one in results if one.case["prompts"] == prompts]
    clean, overall, *_ = mine
    kinds = sorted((one for one in mine if one.case["shown"] in SEVERITIES), key=lambda one: one.value)
    left = f", {overall.value / clean.value:.0%} of what it is otherwise" if clean.value else ""
    return (
        f"As they are, {said(clean)} of the pictures are right; over {len(kinds)} corruptions at five severities "
        f"{said(overall)}{left} ({prompts} prompts). It bears {kinds[0].case['shown']} worst ({said(kinds[0])}) and "
        f"{kinds[-1].case['shown']} best ({said(kinds[-1])})."
    )
