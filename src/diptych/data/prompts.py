"""Prompt templates and class names to sentences.

A template is a string with one `{}`; the class name goes there. `TEMPLATES` holds CLIP's published sets, written as
the patterns they follow. Source: CLIP, arXiv:2103.00020, section 3.1.4, and the released prompt files.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from diptych.data.texts import read_text, text_lines
from diptych.errors import DataError

PLAIN = ("{}",)  # the bare class name


def fill(templates: Sequence[str], name: str) -> list[str]:
    """One sentence a template for a class name; braces in the name stay as they are."""
    return [template.replace("{}", name) for template in templates]


def with_article(name: str) -> str:
    """The name with "a" or "an" before it, by its first letter.

    >>> with_article("owl")
    'an owl'
    """
    return f"{'an' if name[:1].casefold() in 'aeiou' and name else 'a'} {name}"


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """The templates with one spelling of the gap: `{c}`, as CLIP_benchmark writes it, becomes `{}`.

    Raises:
        DataError: there are none, or one has no gap or several.
    """
    if isinstance(templates, str) or not templates:
        raise DataError(f"prompt templates must be a list of at least one string. Got {templates!r}.")
    checked = tuple(template.replace("{c}", "{}") for template in templates)
    for template in checked:
        if (gaps := template.count("{}")) != 1:
            raise DataError(f"a prompt template must hold one {{}} for the class name. Got {gaps} in {template!r}.")
    return checked


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Class names without surrounding spaces, each of them once.

    Raises:
        DataError: there are none, one is empty, or some occur twice.
    """
    if isinstance(labels, str) or not labels:
        raise DataError(f"labels must be a list of at least one string. Got {labels!r}.")
    names = tuple(label.strip() for label in labels)
    if "" in names:
        raise DataError(
            f"a label must not be empty. Number {names.index('') + 1} of {len(names)} is: name it or drop it."
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"labels must differ. More than once: {', '.join(twice)}. Rename or drop the others.")
    return names


def read_lines(path: Path) -> list[str]:
    """Lines of a file of labels or templates, as `texts` reads text: without surrounding spaces, blank ones left out.

    Raises:
        DataError: the file cannot be read as text, or holds no line.
    """
    lines = text_lines(read_text(path))
    if not lines:
        raise DataError(f"{path} must hold at least one line. It is empty.")
    return lines


def _each(pattern: str, *choices: str) -> tuple[str, ...]:
    """The pattern with every combination of the choices, `"one|other"`, put for its `_`, from left to right."""
    pieces = pattern.split("_")
    assert len(pieces) == len(choices) + 1
    return tuple(
        pieces[0] + "".join(map("".join, zip(picked, pieces[1:], strict=True)))
        for picked in itertools.product(*(choice.split("|") for choice in choices))
    )


_QUALITIES = (
    "bad|cropped|bright|dark|blurry|low resolution|pixelated|jpeg corrupted|good|close-up|black and white"  # of a photo
)
_LOOKS = "hard to see|clean|dirty|cool|nice|weird|small|large"  # of a thing
_MADE_INTO = (
    *_each("_ of _ {}.", "graffiti|art", "a|the"),
    *_each("_ _ {}.", "a|the", "embroidered|plastic|origami|toy|cartoon|plushie"),
    *_each("_ {} in a video game.", "a|the"),
)
_MEDIA = "photo|video|example|demonstration"
_ACTING = "| using| doing| during| performing| practicing"

TEMPLATES: dict[str, tuple[str, ...]] = {
    "imagenet": (
        *_each("a _ photo of _ {}.", _QUALITIES, "a|the"),
        *_each("a photo of _ _ {}.", "a|the", _LOOKS),
        *_each("a photo of _ {}.", "a|the|many|one|my"),
        *_each("a _ of _ {}.", "sculpture|rendering|drawing|painting|doodle|sketch|rendition|tattoo", "a|the"),
        *_MADE_INTO,
        *_each("itap of _ {}.", "a|the|my"),
    ),
    "cifar": (
        *_each("a _ photo of _ {}.", "blurry|black and white|low contrast|high contrast|bad|good", "a|the"),
        *_each("a photo of _ _{}.", "a|the", "|small |big "),
    ),
    "caltech101": (
        *_each("a _ of _ {}.", "photo|painting|sculpture|sketch|tattoo|rendition|drawing|doodle", "a|the"),
        *_MADE_INTO,
    ),
    "ucf101": _each("a _ of _ person_ {}.", _MEDIA, "a|the", _ACTING),
    "kinetics700": (*_each("a _ of {}.", _MEDIA), *_each("a _ of a person_ {}.", _MEDIA, _ACTING)),
    "resisc45": _each("_ _ of _{}.", "satellite|aerial", "imagery|photo|view", "|a |the "),
    "stanford_cars": (
        *_each("a photo of _ {}.", "a|the|my|my dirty|my clean|my new|my old"),
        "i love my {}!",
    ),
    "dtd": _each("a photo of _ {} _.", "a|the", "texture|pattern|thing|object"),
    "fer2013": (
        "a photo of a {} looking face.",
        "a photo of a face showing the emotion: {}.",
        "a photo of a face looking {}.",
        "a face that looks {}.",
        "they look {}.",
        "look at how {} they are.",
    ),
    "country211": (
        *_each("a photo i took _ {}.", "in|while visiting"),
        *_each("a photo _ {}.", "from my home country of|from my visit to|showing the country of"),
    ),
    "eurosat": _each("a centered satellite photo of _{}.", "|a |the "),
    "gtsrb": _each('a _ photo of a "{}" traffic sign.', "zoomed in|centered|close up"),
    "fgvc_aircraft": _each("a photo of _ {}, a type of aircraft.", "a|the"),
    "stl10": _each("a photo of _ {}.", "a|the"),
    "sun397": _each("a photo of _ {}.", "a|the"),
    "birdsnap": ("a photo of a {}, a type of bird.",),
    "flowers102": ("a photo of a {}, a type of flower.",),
    "pets": ("a photo of a {}, a type of pet.",),
    "food101": ("a photo of {}, a type of food.",),
    "voc2007": ("a photo of a {}.",),
    "mnist": ('a photo of the number: "{}".',),
    "clevr_counts": ("a photo of {} objects.",),
    "kitti": PLAIN,  # its class names are whole sentences
    "patch_camelyon": ("this is a photo of {}",),
    "hateful_memes": ("a {}.",),
    "rendered_sst2": ("a {} review of a movie.",),
}
