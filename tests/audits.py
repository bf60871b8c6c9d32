"""A small audit, worked by hand."""

from dataclasses import replace

import numpy as np
from PIL import Image

from diptych.eval.chapter import Audit, Chapter, Example, contrasts_of, share_of
from diptych.eval.result import Conditions, DataId, ModelId
from diptych.eval.tasks import Prompts
from diptych.measures.compare import compare_shares

DATA = DataId(name="people", split="val", sha256="ab" * 32)
PROMPTS = Prompts(templates=("a photo of {}",), classnames=(("a thief",), ("a man",)), source="section 7.1")
KEYS = tuple(f"{number}.jpg" for number in range(20))


def an_audit(crime: int = 6, model: str = "mine") -> Audit:
    """Of 10 pictures of each group so many of the young are called by a crime, and one of the old."""
    young, old = (
        replace(
            share_of(keys, np.arange(10) < count, data=DATA, case={"called": "crime", "group": ages}, prompts=PROMPTS),
            model=ModelId(name=model, fingerprint=model),
        )
        for keys, count, ages in ((KEYS[:10], crime, "0-19"), (KEYS[10:], 1, "20-59"))
    )
    chapter = Chapter(
        name="class-design",
        title="What people are called",
        question="Which pictures of people are called by words for crimes?",
        sentences=(f"Of pictures of people aged 0 to 19, {crime} of 10 are called by a crime | <b>.",),
        results=(young, old),
        contrasts=contrasts_of([("called by a crime: 0-19 against 20-59", compare_shares(crime, 10, 1, 10))]),
        examples=(Example(key="0.jpg", caption="a child, called a thief", picture=Image.new("RGB", (8, 8), "red")),),
        not_measured=("60+ has no picture.",),
        notes=("A label is no verdict.",),
        conditions={"words": "those of the paper"},
    )
    return Audit(
        model=ModelId(name=model, fingerprint="f" * 64),
        conditions=Conditions(seed=0, versions={"diptych": "1"}, hardware={"cpu": "a processor", "cores": 2}),
        chapters=(chapter,),
        not_measured={"surveillance": "No set of scenes was given."},
    )
