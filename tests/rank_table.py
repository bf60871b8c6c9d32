"""Runs in several processes: which combinations there are, and how each is held to the run of one process."""

import dataclasses
import functools
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from conftest import COLORS, SHAPES, drawing, png
from diptych.config import to_toml
from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.pairs.augment import Augment
from diptych.pairs.pipeline import DataConfig, Source
from diptych.pairs.shards import ShardWriter
from diptych.pairs.teacher import IN_SHARD
from diptych.torch_runtime import generator
from diptych.train.objectives import BagOfWords, Caption, Classification, Contrastive, Sigmoid
from diptych.train.recipe import Phase, TokenizerConfig, TrainConfig, TrainRecipe
from diptych.weights.bundle import Bundle
from processes import free_port, run_ranks
from runs import change, curve, furthest, learn_all
from tower_kinds import IMAGE_KINDS, TEXT_KINDS, image_of, kind_of, text_of

SEED = 1  # with which each of two processes has no pair at all in some batch, and no batch has fewer than two
STEPS = 20
IMAGES = ("vit", "resnet", "efficientnet-lite")
TEXTS = ("clip", "bag-of-words")
_CAPTION = Caption(width=16, heads=2, layers=1)
OBJECTIVES: dict[str, tuple[Any, ...]] = {
    "contrastive": (Contrastive(),),
    "sigmoid": (Sigmoid(),),
    "bag-of-words": (BagOfWords(),),
    "classification": (Classification(),),
    "caption": (_CAPTION,),
    "contrastive + classification + caption": (Contrastive(), Classification(weight=0.1), _CAPTION),
}
PARALLEL = ("ddp", "fsdp")
# By how many processes the first half of the steps is done and by how many the second, after a restart.
LEGS = {"whole": (2, 4), "shares": (4, 2)}
_FREEZES = "freeze", "freeze_batch_statistics"
OPTIONS: dict[str, dict[str, Any]] = {
    'optimizer = "muon"': {},
    "ema_decay": {"ema_decay": 0.9},
    "distillation": {"distillation": 0.5},
    "phases": {"phases": (Phase(steps=8, image_size=32),)},
    'freeze = ["image"]': {"freeze": ("image",)},
    'freeze = ["image"], fixed pictures': {"freeze": ("image",), "fixed": True},
    'freeze = ["text"]': {"freeze": ("text",)},
    "freeze_batch_statistics": {"freeze_batch_statistics": True},
    'precision = "float16"': {"precision": "float16"},
    'precision = "float32"': {},
}
# The text tower that an option is tried with.
_TEXT_OF = {
    objective: "bag-of-words" if "bag" in objective or "class" in objective else "clip" for objective in OBJECTIVES
}
# By how much a weight or a loss may differ from those of one process.
BOUNDS = {'precision = "float16"': 2e-2, 'precision = "float32"': 2e-4}
_BOUND_OF_DOUBLE = 1e-9


class Combination(NamedTuple):
    """One run, by the names of what it combines."""

    image: str
    text: str
    objective: str
    optimizer: str
    option: str  # "" for none
    parallel: str
    saver: str

    def __str__(self) -> str:
        return ", ".join(part for part in self if part)


class Outcome(NamedTuple):
    """What became of a run."""

    refused: str = ""  # the sentence, before any step
    weights: float = 0.0  # the largest difference to the run of one process, of weights and of the logged losses
    losses: float = 0.0

    def word(self, combination: Combination) -> str:
        """same, refused, or by how much it differs."""
        bound = BOUNDS.get(combination.option, _BOUND_OF_DOUBLE)
        return "refused" if self.refused else "same" if max(self[1:]) < bound else f"differs by {max(self[1:]):.0e}"


def all_combinations() -> Iterator[Combination]:
    """Towers, objectives and ways to hold a model, each with each; then each option with each objective.

    Savers take turns; where an option is tried so do image towers, optimizers and ways to hold a model.
    """
    for turn, (image, text, objective) in enumerate(itertools.product(IMAGES, TEXTS, OBJECTIVES)):
        for number, parallel in enumerate(PARALLEL):
            saver = tuple(LEGS)[(turn + turn // 6 + number) % 2]
            yield Combination(image, text, objective, "adamw", "", parallel, saver)
    for row, option in enumerate(OPTIONS):
        for turn, (objective, text) in enumerate(_TEXT_OF.items()):
            image = "resnet" if option == "freeze_batch_statistics" else IMAGES[(row + turn + turn // 3) % 3]
            optimizer = "muon" if option == 'optimizer = "muon"' or (row + turn // 2) % 2 else "adamw"
            parallel, saver = PARALLEL[(row + turn) % 2], tuple(LEGS)[(row + turn // 2) % 2]
            yield Combination(image, text, objective, optimizer, option, parallel, saver)


class Table:
    """Combinations as recipes over pairs of its own.

    Args:
        folder: for pairs, models to start from, and runs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pairs = folder / "pairs"
        _write_pairs(self._pairs)

    def recipe(self, one: Combination) -> TrainRecipe:
        """Batches of eight pairs, of which every second is bad, so that some process may have none at all.

        Raises:
            ConfigError: the combination is refused.
        """
        options = OPTIONS.get(one.option, {})
        size = 64 if "phases" in options else 32
        image = next(image_of(kind) for kind in IMAGE_KINDS if kind_of(kind) == one.image)
        text = next(text_of(kind) for kind in TEXT_KINDS if kind_of(kind) == one.text)
        model = CLIPConfig(
            embed_dim=24,
            image=dataclasses.replace(image, image_size=size),
            text=dataclasses.replace(text, layers=1) if one.text == "clip" else text,
            head="sigmoid" if one.objective == "sigmoid" else "softmax",
        )
        preprocess = Preprocess(image_size=size)
        start = self._start(model, preprocess) if any(name in options for name in _FREEZES) else ""
        teacher = IN_SHARD if "distillation" in options else ""
        augment = Augment(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0)) if "fixed" in options else Augment()
        source = Source(path=str(self._pairs), teacher_images=teacher, teacher_texts=teacher)
        return TrainRecipe(
            name="tiny",
            model=model,
            data=DataConfig(sources=(source,), max_bad=0.9, augment=augment),
            preprocess=preprocess,
            tokenizer=TokenizerConfig(vocab_size=600),
            seed=SEED,
            start_from=start,
            train=TrainConfig(
                steps=STEPS, batch_size=8, learning_rate=2e-3, warmup_steps=2, log_every=1, checkpoint_every=100,
                stall_seconds=600,
                # The loss does not depend on the bias of keys: its gradient is rounding, of which a small epsilon
                # makes steps.
                epsilon=1e-4, max_gradient_norm=5.0, objectives=OBJECTIVES[one.objective],
                optimizer=one.optimizer,  # pyright: ignore[reportArgumentType]
                parallel=one.parallel,  # pyright: ignore[reportArgumentType]
                checkpoint_format=one.saver,  # pyright: ignore[reportArgumentType]
                **{"precision": "float32", **{name: value for name, value in options.items() if name != "fixed"}},
            ),
        )  # fmt: skip

    def _start(self, model: CLIPConfig, preprocess: Preprocess) -> str:
        folder = self._folder / f"start-{model.image.kind}-{model.text.kind}-{model.head}"
        if not folder.exists():
            fresh = CLIP(model, generator(1))
            Bundle(model=fresh, preprocess=preprocess, tokenizer=_tokenizer()).save(folder)
        return str(folder)

    def outcomes(self, combinations: Iterable[Combination], *, seconds: float) -> dict[Combination, Outcome]:
        """Each combination in several processes, and its twin in one; runs of other tables may go on beside.

        Args:
            combinations: which; what differs in nothing that one process would notice has one twin.
            seconds: that all of them may take.
        """
        found: dict[Combination, Outcome] = {}
        jobs: list[tuple[Path, Path, bool, list[tuple[int, int, int]]]] = []
        twins: dict[tuple[str, bool], Path] = {}  # by recipe, and whether all is float64
        runs: dict[Combination, tuple[Path, Path]] = {}
        for one in combinations:
            try:
                recipe = self.recipe(one)
            except ConfigError as error:
                found[one] = Outcome(str(error))
                continue
            is_double = one.option not in BOUNDS
            twin = to_toml(change(recipe, parallel="ddp", checkpoint_format="whole")), is_double
            if twin not in twins:
                twins[twin] = self._written(twin[0], f"twin of {one}")
                jobs.append((twins[twin].with_suffix(".toml"), twins[twin], is_double, [(1, 0, 0)]))
            out = self._written(to_toml(recipe), str(one))
            first, second = (2, 2) if one.option else LEGS[one.saver]
            legs = [(first, free_port(), STEPS // 2), (second, free_port(), 0)]
            jobs.append((out.with_suffix(".toml"), out, is_double, legs))
            runs[one] = out, twins[twin]
        if jobs:
            run_ranks(learn_all, 4, jobs, seconds=seconds)
        for one, (out, twin) in runs.items():
            losses = max(abs(a - b) for a, b in zip(curve(out, "loss"), curve(twin, "loss"), strict=True))
            found[one] = Outcome("", furthest(out, twin), losses)
        return found

    def _written(self, recipe: str, name: str) -> Path:
        out = self._folder / re.sub(r"[^a-z0-9]+", "-", name)
        out.with_suffix(".toml").write_text(recipe)
        return out


def cell(outcomes: Mapping[Combination, Outcome], **wanted: str) -> str:
    """The one word for all of some combinations, or all words that there are."""
    words = {
        outcomes[one].word(one) if one in outcomes else "not tried"
        for one in all_combinations()
        if all(getattr(one, name) == value for name, value in wanted.items())
    }
    return " and ".join(sorted(words))


def tables(outcomes: Mapping[Combination, Outcome]) -> str:
    """What docs/how-to/distributed.md shows: towers by objectives, options by objectives."""
    lines = [f"| objective | text tower | {' | '.join(f'`{image}`' for image in IMAGES)} |"]
    lines.append("|---" * (2 + len(IMAGES)) + "|")
    for objective, text in itertools.product(OBJECTIVES, TEXTS):
        words = [cell(outcomes, image=image, text=text, objective=objective, option="") for image in IMAGES]
        lines.append(f"| {objective} | `{text}` | {' | '.join(words)} |")
    lines += ["", f"| option | {' | '.join(OBJECTIVES)} |", "|---" * (1 + len(OBJECTIVES)) + "|"]
    for option in OPTIONS:
        words = [cell(outcomes, objective=objective, option=option) for objective in OBJECTIVES]
        lines.append(f"| `{option}` | {' | '.join(words)} |")
    return "\n".join(lines)


def _write_pairs(folder: Path) -> None:
    """40 drawings, every second of which cannot be read, with stored features of a teacher."""
    with ShardWriter(folder) as writer:
        for n in range(40):
            picture = png(drawing(("red", "blue", "green")[n % 3], ("bar", "cross")[n % 4 // 2], 4 + n % 10))
            caption = ("red bar", "a large blue cross", "green", "cross")[n % 4]
            parts = {"png": picture[:60] if n % 2 else picture, "txt": caption.encode()}
            parts["teacher-image.npy"], parts["teacher-text.npy"] = npy(1 + n % 3, 2, n % 5), npy(1 + n % 4, 1, n % 2)
            writer.add(f"{n:02d}", parts)


def npy(*features: float) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(features, dtype=np.float32))
    return buffer.getvalue()


@functools.cache
def _tokenizer() -> Tokenizer:
    texts = [f"a drawing of a {color} {shape}" for color in COLORS for shape in SHAPES]
    return Tokenizer.train(texts, vocab_size=600, context_length=16)
