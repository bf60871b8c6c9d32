"""TrainRecipe: everything that decides a training run, from TOML, printed whole."""

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from diptych.config import apply_overrides, from_dict, read_toml, to_dict, unknown_name
from diptych.data.images import Preprocess
from diptych.errors import ConfigError
from diptych.model.clip import CLIPConfig
from diptych.outside import import_kinds, is_outside
from diptych.pairs.pipeline import DataConfig
from diptych.pairs.teacher import IN_SHARD
from diptych.train.objectives import (
    Contrastive,
    Distillation,
    Objective,
    ObjectiveConfig,
    Sigmoid,
    check_objectives,
)
from diptych.train.start import with_sizes_of_start

# What options may name besides code of the user's.
_KNOWN = {
    "optimizer": ("adamw", "muon"),
    "schedule": ("cosine",),
    "trackers": ("tensorboard", "wandb", "mlflow", "trackio"),
}

_STRETCH = 16  # times the patches of image_size that a picture may have in training
_NO_PATH = re.compile(r"~|[A-Za-z][A-Za-z0-9+.-]+:")  # a home, an embedded set, a URL

# Options that may change when a run goes on: neither its weights nor its log come out otherwise, but for the rounding
# of sums that some of them take in another order, as another number of processes does too.
_FREE = (
    "data.max_bad",
    "data.remote",
    "data.verify",
    "train.activation_checkpointing",
    "train.checkpoint_every",
    "train.checkpoint_format",
    "train.compile",
    "train.keep_best",
    "train.keep_checkpoints",
    "train.loss_exchange",
    "train.max_forgetting",
    "train.micro_batch_size",
    "train.old_tasks",
    "train.parallel",
    "train.stall_seconds",
    "train.threads",
    "train.trackers",
)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A run's first steps, or those after the phase before, at other sizes than the model's own."""

    steps: int  # updates
    image_size: int  # pixels of one side; learned positions are stretched where it changes
    context_length: int = 0  # tokens; longer texts are cut and counted; 0: all that the text tower takes

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"train.phases must have at least 1 step each. Got {self.steps}.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop: how many steps of what size, and what is done every so many of them."""

    steps: int  # updates of the whole run; pairs drawn = steps * batch_size, and more with data.sequence_lengths
    # What is learned, added up; none: contrastive, as model.head has it. Or of a kind of yours, "module:name".
    objectives: tuple[ObjectiveConfig, ...] = ()
    phases: tuple[Phase, ...] = ()  # what comes before the model's own sizes, to which the steps that remain belong
    batch_size: int = 256  # pairs an update, bad ones included, over all processes; at the longest of sequence_lengths
    learning_rate: float = 5e-4  # the highest
    schedule: str = "cosine"  # of the learning rate: a linear warm-up, then half a cosine down to 0; or "module:name"
    warmup_steps: int = 100  # steps
    weight_decay: float = 0.2  # on matrices alone
    # muon: matrices within blocks and stages move by their momentum made orthogonal, the rest by AdamW
    optimizer: str = "adamw"  # or "module:name", see docs/how-to/extend.md
    momentum: float = 0.95  # of Muon
    orthogonal_every: int = 1  # steps from one move of a matrix by Muon to the next, so many times as far; costs less
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    max_gradient_norm: float = 0.0  # 0: gradients are not clipped
    same_text_is_positive: bool = True  # one caption in two templates is a positive, not a negative; else no difference
    # auto: bfloat16 where it is measured to be faster; float16: with a factor on the loss that adapts itself
    precision: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    # How several processes hold the model (torchrun starts them). ddp: each has all of it; fsdp: each has its share.
    parallel: Literal["ddp", "fsdp"] = "ddp"
    # Of ddp's gradients on their way. powersgd: two factors of four columns for each matrix; the rest comes later
    gradient_compression: Literal["none", "float16", "bfloat16", "powersgd"] = "none"
    # How texts get to the pictures of other processes. gather: all at once; ring: those of one process at a time.
    loss_exchange: Literal["gather", "ring"] = "gather"
    stall_seconds: float = 45.0  # of several processes: without progress, after which the run says where, and ends
    micro_batch_size: int = 0  # pairs a process has activations of at a time; all stay negatives; 0: all of its pairs
    activation_checkpointing: bool = False  # compute transformer blocks a second time instead of keeping what they made
    patch_dropout: float = 0.0  # share of the patches that a vision transformer does not look at in training (FLIP)
    layer_decay: float = 1.0  # factor on the learning rate from each layer to the one below it; 1: all learn alike
    optimizer_state: Literal["float32", "bfloat16", "int8"] = (
        "float32"  # AdamW's moments: 8, 4 or 2.03 bytes a parameter
    )
    ema_decay: float = 0.0  # of an average of the weights, which is then what is measured and what comes out; 0: none
    freeze: tuple[Literal["image", "text"], ...] = ()  # towers that keep the weights of `start_from` (LiT)
    freeze_batch_statistics: bool = False  # a ResNet keeps those of `start_from`, and learns its weights alone
    compile: bool = False  # transformer blocks by torch.compile: minutes at the start, and a C++ compiler on a CPU
    distillation: float = 0.0  # weight of the teacher's softmax beside the loss; sources name its stored features
    teacher_logit_scale: float = 100.0  # the factor, of the teacher
    threads: int = 1  # that prepare batches ahead of time
    log_every: int = 10  # steps
    # Where the log goes too: "tensorboard", "wandb", "mlflow", "trackio", or "module:name" (docs/how-to/extend.md)
    trackers: tuple[str, ...] = ()
    evaluate_every: int = 0  # steps; 0: only at the end
    checkpoint_every: int = 500  # steps
    keep_checkpoints: int = 2  # the newest so many
    # Of several processes. whole: a bundle, which the first writes; shares: each writes its own, beside further steps
    checkpoint_format: Literal["whole", "shares"] = "whole"
    keep_best: str = ""  # a metric as it is logged, e.g. "twemoji/top1": the bundle that scored highest is kept too
    old_tasks: tuple[str, ...] = ()  # metrics as they are logged, which a run with `start_from` must not lose
    max_forgetting: float = 0.0  # by how much one of them may fall before the run stops; 0: by any

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ConfigError(
                "train.batch_size must be at least 2: a pair is told apart from the others of its batch. "
                f"Got {self.batch_size}."
            )
        for name in (
            "steps",
            "learning_rate",
            "epsilon",
            "orthogonal_every",
            "threads",
            "log_every",
            "checkpoint_every",
            "keep_checkpoints",
            "stall_seconds",
        ):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"train.{name} must be above 0. Got {getattr(self, name)}.")
        for name in (
            "warmup_steps",
            "weight_decay",
            "max_gradient_norm",
            "evaluate_every",
            "micro_batch_size",
            "distillation",
            "teacher_logit_scale",
            "max_forgetting",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"train.{name} must not be negative. Got {getattr(self, name)}.")
        for name in ("momentum", "beta1", "beta2", "patch_dropout", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"train.{name} must be at least 0 and below 1. Got {getattr(self, name)}.")
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"train.layer_decay must be above 0 and at most 1. Got {self.layer_decay}.")
        self._check_names()
        self._check_what_goes_together()

    def _check_what_goes_together(self) -> None:
        if self.optimizer_state == "int8" and self.parallel == "fsdp":
            raise ConfigError(
                'train.optimizer_state="int8" needs train.parallel="ddp": the numbers that share a scale must lie in '
                'one process. Use train.optimizer_state="bfloat16" with fsdp.'
            )
        if self.optimizer_state == "int8" and self.optimizer == "muon":
            raise ConfigError(
                'train.optimizer_state="int8" needs train.optimizer="adamw", whose moments it holds. '
                'Use train.optimizer_state="bfloat16" with muon.'
            )
        if self.gradient_compression != "none" and self.parallel == "fsdp":
            raise ConfigError(
                'train.gradient_compression must be "none" with train.parallel="fsdp": it is of gradients that each '
                f'process has whole. Got "{self.gradient_compression}". Use train.parallel="ddp".'
            )
        if len(set(self.freeze)) > 1:
            raise ConfigError(f"train.freeze must leave a tower to train. Got {' and '.join(self.freeze)}.")
        if self.max_forgetting and not self.old_tasks:
            raise ConfigError("train.max_forgetting must be 0 unless train.old_tasks names the metrics it is about.")
        shares = {name: getattr(self, name) for name in ("momentum", "beta1", "beta2")}
        if self.optimizer_state == "bfloat16" and max(shares.values()) > 0.99:
            raise ConfigError(
                "train.momentum, beta1 and beta2 must be at most 0.99 with train.optimizer_state=bfloat16, which "
                f"cannot tell smaller steps apart. Got {', '.join(map(str, shares.values()))}."
            )
        if is_outside(self.optimizer):
            self._check_outside_optimizer()

    def _check_outside_optimizer(self) -> None:
        if self.optimizer_state != "float32":
            raise ConfigError(
                f"train.optimizer_state must be float32 with train.optimizer={self.optimizer}, whose state is its own."
            )
        if self.checkpoint_format == "shares":
            raise ConfigError(
                'train.checkpoint_format must be "whole" with an optimizer from outside, of whose memory nobody knows '
                f"the shapes before it is read. Got {self.optimizer}."
            )
        if self.phases:
            raise ConfigError(
                f"train.phases must be empty with train.optimizer={self.optimizer}, whose state cannot be stretched."
            )

    def _check_names(self) -> None:
        for option, known in _KNOWN.items():
            value = getattr(self, option)
            for name in (value,) if isinstance(value, str) else value:
                if name not in known and not is_outside(name):
                    kind = 'known here, nor "module:name" of code of yours'
                    raise ConfigError(f"train.{option}: {unknown_name(name, '', known, kind)}")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """The vocabulary, learned from the captions and templates of the sources."""

    vocab_size: int = 4096  # tokens, 512 byte symbols and the two specials included


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """A whole run. `seed` and the data decide every random choice in it."""

    name: str  # of the model that comes out
    model: CLIPConfig
    data: DataConfig
    train: TrainConfig
    preprocess: Preprocess
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    seed: int = 0
    # What the first step starts from, instead of chance: a name, "hf:org/name" or a folder, as `diptych.load` takes it.
    # Its sizes must be those of `model`, but for the image size, for which positions are stretched.
    start_from: str = ""
    evaluate: tuple[str, ...] = ()  # labelled sets for zero-shot accuracy during the run, "embedded:NAME" or folders
    licence: str = ""  # of the weights that come out, as an SPDX identifier; goes into the bundle
    about_data: str = ""  # one sentence on the training data; goes into the bundle

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"seed must be at least 0 and below 2**31. Got {self.seed}.")
        if self.preprocess.image_size != self.model.image.image_size:
            raise ConfigError(
                "preprocess.image_size must equal model.image.image_size. "
                f"Got {self.preprocess.image_size} and {self.model.image.image_size}."
            )
        if self.tokenizer.vocab_size != self.model.text.vocab_size:
            raise ConfigError(
                "tokenizer.vocab_size must equal model.text.vocab_size. "
                f"Got {self.tokenizer.vocab_size} and {self.model.text.vocab_size}."
            )
        if self.train.freeze_batch_statistics and not self.start_from:
            raise ConfigError("train.freeze_batch_statistics must be false without start_from, whose they are.")
        if self.train.freeze and not self.start_from:
            raise ConfigError("train.freeze must be empty without start_from: a tower frozen by chance learns nothing.")
        if self.train.old_tasks and not self.start_from:
            raise ConfigError("train.old_tasks must be empty without start_from: a new model has nothing to forget.")
        self._check_phases()
        check_objectives(self.objectives, self.model)
        has_teacher = all(source.teacher_images and source.teacher_texts for source in self.data.sources)
        if bool(self.train.distillation) != has_teacher or any(
            bool(source.teacher_images) != bool(source.teacher_texts) for source in self.data.sources
        ):
            raise ConfigError(
                "train.distillation must be above 0 where all of data.sources name teacher_images and teacher_texts, "
                f"and 0 where none does. Got {self.train.distillation}."
            )
        if self.train.patch_dropout and not self.model.image.can_drop_patches:
            raise ConfigError(
                "train.patch_dropout must be 0 unless model.image is a vision transformer. "
                f"Got {self.train.patch_dropout} for a {self.model.image.kind} tower; vit and siglip take it."
            )
        self._check_naflex()
        if self.train.micro_batch_size and self.model.image.needs_whole_batch:
            raise ConfigError(
                f"train.micro_batch_size must be 0 for a {self.model.image.kind} tower: it needs the whole batch, as "
                f"batch norm does. Got {self.train.micro_batch_size}. Use a vision transformer."
            )

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is learned: as stated, else what the model's head is for; and a teacher's softmax where there is one."""
        settings = self.train
        stated = settings.objectives or ((Sigmoid() if self.model.head == "sigmoid" else Contrastive()),)
        if not settings.distillation:
            return stated
        return (
            *stated,
            Distillation(weight=settings.distillation, teacher_logit_scale=settings.teacher_logit_scale),
        )

    def _check_naflex(self) -> None:
        """Of a tower whose pictures keep their shape, and of the lengths that are drawn for it."""
        image, lengths = self.model.image, self.data.sequence_lengths
        if self.preprocess.row_width != image.row_width:
            raise ConfigError(
                'preprocess.resize must be "naflex", with the patch_size of model.image, where model.image.kind is '
                f'"naflex", and there alone. Got "{self.preprocess.resize}" for "{image.kind}".'
            )
        if lengths and not image.row_width:
            raise ConfigError(
                'data.sequence_lengths must be empty unless model.image.kind is "naflex": other towers take pictures '
                f"of one size. Got {', '.join(map(str, lengths))}."
            )
        most = _STRETCH * (self.preprocess.image_size // self.preprocess.patch_size) ** 2 if image.row_width else 0
        if max(lengths, default=0) > most:
            raise ConfigError(
                f"data.sequence_lengths must be at most {most:,}, {_STRETCH} times the patches of a picture of "
                f"image_size: learned positions are stretched no further. Got {max(lengths):,}."
            )
        if image.row_width and self.train.phases:
            raise ConfigError(
                "train.phases must be empty for a naflex tower, whose pictures have the patches that "
                f"data.sequence_lengths says. Got {len(self.train.phases)}."
            )
        if image.row_width and self.train.compile:
            raise ConfigError("train.compile must be false for a naflex tower: each length would be compiled anew.")

    def _check_phases(self) -> None:
        steps, text = sum(phase.steps for phase in self.train.phases), self.model.text
        if steps >= self.train.steps:
            raise ConfigError(
                "train.phases must leave steps for the model's own sizes, which come last. "
                f"Got {steps} of train.steps={self.train.steps}."
            )
        for number, phase in enumerate(self.train.phases):
            if phase.context_length and text.reads_padding:
                raise ConfigError(
                    f"train.phases cannot shorten texts for a {text.kind} text tower, which reads the padding."
                )
            if phase.context_length and not 3 <= phase.context_length <= text.context_length:
                raise ConfigError(
                    f"train.phases[{number}].context_length must lie in 3 to model.text.context_length="
                    f"{text.context_length}, or be 0. Got {phase.context_length}."
                )
            try:
                replace(self.model.image, image_size=phase.image_size)
            except ConfigError as error:
                raise ConfigError(f"train.phases[{number}].image_size: {error}") from error


def read_recipe(path: Path, overrides: Sequence[str] = (), *, imports: bool = True) -> TrainRecipe:
    """A recipe from a TOML file, with `dotted.key=value` options put over it.

    Relative paths in the file are from its folder, those in options from the current directory; all come out absolute.
    Of a recipe with `start_from`, sizes, picture recipe and vocabulary that it leaves out are those of the model.

    Args:
        path: the file.
        overrides: options put over it.
        imports: whether code that it names (`module:name`) is imported; False for files that may be a stranger's.

    Raises:
        ConfigError: the file is not there or not TOML, or an option is unknown, missing or of the wrong type; or it
            names code that cannot be imported.
        WeightsError: the model of `start_from`, whose sizes are asked for, cannot be read.
    """
    data = with_absolute_paths(read_toml(path), path.absolute().parent)
    data = with_absolute_paths(apply_overrides(data, overrides), Path.cwd())
    if imports:
        import_kinds(data)
    return recipe_of(with_sizes_of_start(data))


def recipe_of(plain: Mapping[str, Any]) -> TrainRecipe:
    """A recipe from plain data, also of a diptych in which `train.tensorboard` was an option.

    Raises:
        ConfigError: see `read_recipe`.
    """
    train = plain.get("train")
    if isinstance(train, Mapping) and isinstance(wanted := train.get("tensorboard"), bool):
        others = [name for name in train.get("trackers", ()) if name != "tensorboard"]
        train = {key: value for key, value in train.items() if key != "tensorboard"}
        plain = {**plain, "train": {**train, "trackers": ["tensorboard", *others] if wanted else others}}
    return from_dict(TrainRecipe, plain)


def with_absolute_paths(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A recipe as plain data, its relative paths taken from a folder.

    "embedded:NAME", URLs, "hf:NAME" and what begins with "~" stay as they are; so does `start_from` without a slash,
    which is a model's name.
    """
    return _with_paths(data, lambda path: path if _NO_PATH.match(path) else os.path.normpath(folder / path))


def without_folders(recipe: TrainRecipe) -> TrainRecipe:
    """A recipe whose absolute paths are their last part: what travels with a model tells nobody's folders."""
    plain = _with_paths(to_dict(recipe), lambda path: Path(path).name if Path(path).is_absolute() else path)
    return recipe_of(plain)


def _with_paths(data: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Plain data of a recipe with each path in it changed; values that are of another type than they must be stay."""

    def changed(table: Any, *names: str) -> Any:
        if not isinstance(table, Mapping):
            return table
        new = {**table}
        for name in names:
            if isinstance(value := new.get(name), str) and value:
                new[name] = change(value)
            elif isinstance(value, list | tuple):
                new[name] = [change(one) if isinstance(one, str) else one for one in value]
        return new

    is_name = isinstance(start := data.get("start_from"), str) and not re.search(r"[/\\]", start)
    plain: dict[str, Any] = changed(data, "evaluate", *([] if is_name else ["start_from"]))
    if isinstance(drawn := plain.get("data"), Mapping):
        plain["data"] = drawn = {**drawn}
        if isinstance(sources := drawn.get("sources"), list | tuple):
            drawn["sources"] = [_changed_source(source, changed) for source in sources]
        if "remote" in drawn:
            drawn["remote"] = changed(drawn["remote"], "cache")
    return plain


def _changed_source(source: Any, changed: Callable[..., Any]) -> Any:
    teachers = ("teacher_images", "teacher_texts")
    files = [name for name in teachers if isinstance(source, Mapping) and source.get(name) != IN_SHARD]
    return changed(source, "path", "image_folder", *files)


def difference(before: Mapping[str, Any], now: Mapping[str, Any], *, where: str = "") -> str:
    """The first option by which two recipes would give two runs, in words, or nothing.

    Args:
        before: plain data, as `config.to_dict` gives it.
        now: likewise.
        where: dotted prefix of the options, e.g. "train.".
    """
    for key in sorted(before.keys() | now.keys()):
        old, new, name = before.get(key), now.get(key), f"{where}{key}"
        if old == new or name in _FREE:
            continue
        if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
            return f"{name} was {old!r} and is now {new!r}"
        if deeper := difference(old, new, where=f"{name}."):
            return deeper
    return ""
