"""TrainRecipe: everything that decides a training run, from TOML, printed whole."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from diptych.config import apply_overrides, from_dict, read_toml
from diptych.data.images import Preprocess
from diptych.data.pipeline import DataConfig
from diptych.errors import ConfigError
from diptych.model.clip import CLIPConfig

# Options that may change when a run goes on: neither its weights nor its log come out otherwise.
_FREE = ("train.threads", "train.checkpoint_every", "train.keep_checkpoints", "data.max_bad")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop: how many steps of what size, and what is done every so many of them."""

    steps: int  # updates of the whole run; pairs drawn = steps * batch_size
    batch_size: int = 256  # pairs an update, bad ones included
    learning_rate: float = 5e-4  # at the end of the warm-up; then half a cosine down to 0
    warmup_steps: int = 100  # steps
    weight_decay: float = 0.2  # on matrices alone
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    max_gradient_norm: float = 0.0  # 0: gradients are not clipped
    same_text_is_positive: bool = True  # one caption in two templates is a positive, not a negative; else no difference
    precision: Literal["auto", "bfloat16", "float32"] = "auto"  # auto: bfloat16 where it is measured to be faster
    threads: int = 1  # that prepare batches ahead of time
    log_every: int = 10  # steps
    evaluate_every: int = 0  # steps; 0: only at the end
    checkpoint_every: int = 500  # steps
    keep_checkpoints: int = 2  # the newest so many

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
            "threads",
            "log_every",
            "checkpoint_every",
            "keep_checkpoints",
        ):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"train.{name} must be above 0. Got {getattr(self, name)}.")
        for name in ("warmup_steps", "weight_decay", "max_gradient_norm", "evaluate_every"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"train.{name} must not be negative. Got {getattr(self, name)}.")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"train.{name} must be at least 0 and below 1. Got {getattr(self, name)}.")


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


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> TrainRecipe:
    """A recipe from a TOML file, with `dotted.key=value` options put over it.

    Raises:
        ConfigError: the file is not there or not TOML, or an option is unknown, missing or of the wrong type.
    """
    return from_dict(TrainRecipe, apply_overrides(read_toml(path), overrides))


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
