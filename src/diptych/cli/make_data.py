"""`diptych make-data`: evaluation sets that we can draw ourselves, as WebDataset evaluation folders."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, get_args

from cyclopts import App, Parameter
from cyclopts.types import NonNegativeInt, PositiveInt
from cyclopts.validators import Number

# Written out here: --help must not wait for numpy. A test holds them to those of the module that draws.
Shift = Literal[
    "pencil",
    "edges",
    "gaussian-noise",
    "shot-noise",
    "impulse-noise",
    "gaussian-blur",
    "defocus-blur",
    "motion-blur",
    "zoom-blur",
    "elastic",
    "contrast",
    "brightness",
    "pixelate",
    "jpeg",
]

SceneTask = Literal[
    "alone", "things", "colour", "left-right", "above-below", "side", "size", "negation", "same", "counting"
]

make_data = App(name="make-data", help="Make an evaluation set: drawn text, drawn scenes, or a shifted copy of a set.")


@make_data.command
def rendered_sst2(text: Path, out: Path) -> None:
    """Draw the sentences of SST-2, black on white: Rendered SST2 again, in another font.

    Parameters
    ----------
    text
        train, dev or test as .tsv (columns sentence and label) or .txt (LABEL SENTENCE a line), or a folder of them.
    out
        A new folder.
    """
    from diptych.data.prompts import TEMPLATES
    from diptych.sets.rendered_text import CLASSES, SIDE, rendered, sentences
    from diptych.sets.writer import write_labelled

    splits = sentences(text)
    about = (
        "Sentences of SST-2 (Socher et al. 2013), drawn by `diptych make-data rendered-sst2` in the font inside "
        f"Pillow, black on white, {SIDE} x {SIDE} px. Another font than that of CLIP's Rendered SST2."
    )
    rows = {split: rendered(some) for split, some in splits.items()}
    _tell(out, write_labelled(out, CLASSES, rows, templates=TEMPLATES["rendered_sst2"], about=about))


@make_data.command
def counting_scenes(out: Path, *, test: PositiveInt = 500, train: NonNegativeInt = 0, seed: NonNegativeInt = 0) -> None:
    """Draw scenes of 3 to 10 solids on a floor; the class is how many.

    Parameters
    ----------
    out
        A new folder.
    test
        Pictures of the test split.
    train
        Pictures of the train split.
    seed
        Of all that is drawn.
    """
    from diptych.data.prompts import TEMPLATES
    from diptych.sets.counting_scenes import COUNTS, scenes
    from diptych.sets.writer import write_labelled

    about = f"Scenes of 3 to 10 solids, drawn by `diptych make-data counting-scenes` with seed {seed}."
    sizes = {"test": test} | ({"train": train} if train else {})
    rows = {split: scenes(count, seed=seed, split=split) for split, count in sizes.items()}
    names = [str(count) for count in COUNTS]
    _tell(out, write_labelled(out, names, rows, templates=TEMPLATES["clevr_counts"], about=about))


@make_data.command
def scenes(
    out: Path,
    *,
    tasks: list[SceneTask] | None = None,
    pairs: PositiveInt = 100,
    counts: PositiveInt = 500,
    seed: NonNegativeInt = 0,
) -> None:
    """Draw scenes that ask how things stand to each other, each with a right and a wrong caption; and things to count.

    A set each of solids and of drawings, OUT/scenes_TASK_MATERIAL. The wrong caption of a scene is the right one of
    its twin.

    Parameters
    ----------
    out
        A folder for the sets, as a suite reads it; each set must be new there.
    tasks
        What the captions are about; may be given several times. By default all.
    pairs
        Pairs of scenes, for each kind of wrong caption.
    counts
        Pictures of one to ten things.
    seed
        Of all that is drawn.
    """
    from diptych.sets.scene_tasks import MATERIALS, scene_choices, scene_counts, set_name
    from diptych.sets.writer import write_choices, write_labelled

    for task in tasks or get_args(SceneTask):
        for material in MATERIALS:
            folder = out / set_name(task, material)
            about = (
                f"Scenes of {material}, drawn by `diptych make-data scenes` with seed {seed}."
                + " The drawings are Twemoji, CC BY 4.0." * (material == "drawings")
            )
            if task == "counting":
                drawn = scene_counts(material, count=counts, seed=seed)
                rows = ((key[:-4], drawn.open(row), int(drawn.targets[row])) for row, key in enumerate(drawn.keys))
                written = write_labelled(folder, drawn.classnames, {"test": rows}, templates=("{}",), about=about)
            else:
                choices = scene_choices(task, material, pairs=pairs, seed=seed)
                written = {"test": write_choices(folder, choices, about=about)}
            _tell(folder, written)


@make_data.command
def shifted(
    data: Path,
    out: Path,
    *,
    kind: Shift,
    severity: Annotated[int, Parameter(validator=Number(gte=1, lte=5))] = 3,
    split: str = "test",
    seed: NonNegativeInt = 0,
) -> None:
    """Copy a labelled set with all its pictures as sketches, or corrupted as in ImageNet-C.

    Parameters
    ----------
    data
        A labelled set, in any layout that `diptych evaluate zero-shot` reads.
    out
        A new folder.
    kind
        What is done to each picture.
    severity
        1 to 5, of a corruption.
    split
        Which split of the set.
    seed
        Of noises, directions and bends.
    """
    from diptych.sets.open import read_labelled
    from diptych.sets.shifts import SKETCHES
    from diptych.sets.shifts import shifted as shifted_rows
    from diptych.sets.writer import write_labelled

    labelled = read_labelled(data, split=split)
    what = kind if kind in SKETCHES else f"{kind}, severity {severity}"
    about = (
        f"The split {split} of {labelled.name}, each picture shifted by `diptych make-data shifted`: {what}, "
        f"seed {seed}. The licence is that of {labelled.name}."
    )
    skipped: Counter[str] = Counter()
    rows = shifted_rows(labelled, kind, severity=severity, seed=seed, skipped=skipped)
    counts = write_labelled(out, labelled.classnames, {split: rows}, templates=labelled.templates or (), about=about)
    _tell(out, counts, skipped)


def _tell(out: Path, counts: dict[str, int], skipped: Counter[str] | None = None) -> None:
    sizes = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    causes = ", ".join(f"{cause} {count:,}" for cause, count in (skipped or {}).items())
    print(f"{out}: {sizes} pictures" + (f"; skipped: {causes}" if causes else ""))
