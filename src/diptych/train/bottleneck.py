"""What holds a run up, and what can be done about it: one sentence, from where its time goes."""

from collections.abc import Mapping

from diptych.train.laps import SECTIONS
from diptych.train.recipe import TrainRecipe

_WORTH_A_WORD = 0.2  # share; below it, what is not computing is no bottleneck


def bottleneck(time: Mapping[str, float], recipe: TrainRecipe, *, cores: int | None = None) -> str:
    """Name the largest part of the time that is not the model's computing, if it is worth a word; else say it computes.

    Args:
        time: shares, as `laps.time_shares` gives them.
        recipe: of the run; advice names its options.
        cores: of the machine that the run is on, when they are known.

    Returns:
        Share and advice; nothing when no time has passed.
    """
    if not time:
        return ""
    name = max((name for name in SECTIONS if name != "step"), key=lambda name: time.get(name, 0.0))
    if time.get(name, 0.0) < _WORTH_A_WORD:
        name = "step"
    what, advice = _ADVICE[name]
    return f"{time.get(name, 0.0):.0%} of the time {what}: {advice(time, recipe, cores)}."


def _data(time: Mapping[str, float], recipe: TrainRecipe, cores: int | None) -> str:
    threads, size = recipe.train.threads, recipe.preprocess.image_size
    if time.get("read", 0.0) > time.get("decode", 0.0):  # threads that wait need no core
        return f"reading is slow; raise train.threads (now {threads}), or bring the data nearer: a faster disk, a cache"
    smaller = f"store pictures nearer to the {size} px that the model takes"
    if cores is None:
        return f"raise train.threads (now {threads}) while there are cores, or {smaller}"
    if threads < cores:
        return f"raise train.threads (now {threads} of {cores} cores), or {smaller}"
    return f"{smaller}; train.threads ({threads}) already takes each of {cores} cores"


def _inputs(time: Mapping[str, float], recipe: TrainRecipe, cores: int | None) -> str:  # noqa: ARG001
    patches = "; train.patch_dropout draws its patches here" if recipe.train.patch_dropout else ""
    return f"on a GPU, look at its link{patches}"


def _step(time: Mapping[str, float], recipe: TrainRecipe, cores: int | None) -> str:  # noqa: ARG001
    train, image, text = recipe.train, recipe.model.image, recipe.model.text
    has_blocks = image.has_blocks or text.has_blocks
    drops = image.can_drop_patches and "image" not in train.freeze  # of a frozen tower features may be remembered
    ways = [
        ("train.precision = auto", train.precision == "float32"),
        ("a larger train.micro_batch_size, or 0", train.micro_batch_size > 0),
        ("train.activation_checkpointing = false where memory allows", has_blocks and train.activation_checkpointing),
        ("train.compile", has_blocks and not train.compile and not image.row_width),
        ("shorter data.sequence_lengths", image.row_width > 0),
        ("train.patch_dropout", drops and not train.patch_dropout),
        ("a smaller model", True),
    ]
    return "what it is for; to go faster, try " + ", ".join(way for way, is_open in ways if is_open)


_ADVICE = {
    "data": ("waits for data", _data),
    "inputs": (
        "prepares and moves inputs",
        _inputs,
    ),
    "step": ("is forward and backward pass", _step),
    "optimizer": (
        "is the optimizer",
        lambda _, recipe, __: f"a larger train.batch_size (now {recipe.train.batch_size}) makes fewer updates",
    ),
    "communication": (
        "waits for other processes",
        lambda _, recipe, __: (
            "the slowest one sets the pace, so give all the same machine and nothing beside it; a larger "
            f"train.batch_size (now {recipe.train.batch_size}) talks less for each pair"
        ),
    ),
    "evaluation": (
        "is evaluation",
        lambda _, recipe, __: (
            f"raise train.evaluate_every (now {recipe.train.evaluate_every}), or evaluate on fewer sets"
            if 0 < recipe.train.evaluate_every < recipe.train.steps  # else only the end is measured
            else "evaluate on fewer sets, or train longer"
        ),
    ),
    "saving": (
        "is saving",
        lambda _, recipe, __: (
            f"raise train.checkpoint_every (now {recipe.train.checkpoint_every})"
            if recipe.train.checkpoint_every < recipe.train.steps
            else "what the end of a run costs, whatever its length; train longer"
        ),
    ),
    "other": (
        "goes by between the steps",
        lambda _, recipe, __: (
            f"the call after each step, or the log; try a higher train.log_every (now {recipe.train.log_every})"
        ),
    ),
}
