"""What is learned: objectives, each a frozen config that tells what it needs and holds its loss. Several add up.

An objective is one of two kinds. Over the batch: each pair is told apart from the others, so the loss takes the
features of all, over all processes. Per sample: a head of its own looks at one pair at a time, so its losses just add
up, over micro-batches and processes alike. The forward pass runs what somebody needs, and nothing else.

A recipe may name one from outside the package as its `kind`, "module:name" (docs/how-to/extend.md); what the protocols
ask is asked of it here instead of by pyright.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, cast, get_args

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.model.clip import CLIPConfig, CLIPOutput
from diptych.model.cost import TowerCost
from diptych.model.towers import blank, check_drawn
from diptych.outside import check_has, is_outside
from diptych.torch_runtime import generator
from diptych.train.captioner import Caption, TextEnds
from diptych.train.distill import shared_distillation
from diptych.train.distributed import Ranks
from diptych.train.exchange import Exchange, of_all, sigmoid_loss, softmax_loss
from diptych.train.seen import Need, Seen
from diptych.train.word_classes import BagOfWords, Classification, WordCounts


@dataclass(frozen=True, kw_only=True)
class Together:
    """What an objective over the batch is told besides features."""

    text_ids: Tensor | None  # [b] integers of this process's pairs, equal for equal captions; None: no two are alike
    ranks: Ranks  # the processes; all must call
    sizes: Sequence[int]  # pairs of each process; 0 is allowed
    exchange: Exchange  # how texts get to pictures
    teacher_image_features: Tensor | None  # [b, E], unit length; None without a teacher, or a pair
    teacher_text_features: Tensor | None

    def all_pairs(self, features: CLIPOutput) -> CLIPOutput:
        """The pairs of all processes, for a loss that each of them computes whole; see `of_all`."""
        return of_all(features, self.ranks, self.sizes)


class OverBatch(Protocol):
    """An objective whose loss needs all pairs at once. It has no parameters of its own."""

    is_per_sample: ClassVar[Literal[False]]

    @property
    def kind(self) -> str: ...
    @property
    def weight(self) -> float: ...
    def needs(self, model: CLIPConfig, /) -> frozenset[Need]: ...
    def loss(self, features: CLIPOutput, together: Together, /) -> Tensor:
        """[], the same in all processes; its gradients are this process's part, see `softmax_loss`."""
        ...


class PerSample(Protocol):
    """An objective whose loss of a pair depends on that pair alone: `build` gives its head."""

    is_per_sample: ClassVar[Literal[True]]
    wants_counts: ClassVar[bool]  # of the words of all captions, which are read before the first step

    @property
    def kind(self) -> str: ...
    @property
    def weight(self) -> float: ...
    def needs(self, model: CLIPConfig, /) -> frozenset[Need]: ...
    def build(self, model: CLIPConfig, tokenizer: TextEnds, /) -> "Head": ...
    def cost(self, model: CLIPConfig, /, *, element: int) -> TowerCost: ...


class Head(Protocol):
    """The module of an objective per sample: its parameters, its loss, and how it tells names apart."""

    names_by_bundle: bool  # whether the bundle's text features are what it would classify by

    def reset_parameters(self, generator: torch.Generator, counts: WordCounts | None, /) -> None: ...
    def __call__(self, seen: Seen, /) -> Tensor: ...  # [B] in nats
    def scores(self, seen: Seen, names: Tensor, /) -> Tensor: ...  # N pictures, [C, L] tokens to [N, C], higher fits


@dataclass(frozen=True, kw_only=True)
class Contrastive:
    """Which text belongs to which picture: CLIP's softmax over the batch, see `clip_loss`."""

    kind: Literal["contrastive"] = "contrastive"
    weight: float = 1.0  # factor on the loss, beside other objectives

    is_per_sample: ClassVar[Literal[False]] = False

    def needs(self, model: CLIPConfig) -> frozenset[Need]:  # noqa: ARG002
        return frozenset({"image_features", "text_features"})

    def loss(self, features: CLIPOutput, together: Together) -> Tensor:
        """[], see `softmax_loss`."""
        return softmax_loss(
            features, together.text_ids, ranks=together.ranks, sizes=together.sizes, exchange=together.exchange
        )


@dataclass(frozen=True, kw_only=True)
class Sigmoid:
    """Whether this text belongs to this picture, asked of all: SigLIP's loss, see `siglip_loss`."""

    kind: Literal["sigmoid"] = "sigmoid"
    weight: float = 1.0  # factor on the loss, beside other objectives

    is_per_sample: ClassVar[Literal[False]] = False

    def needs(self, model: CLIPConfig) -> frozenset[Need]:  # noqa: ARG002
        return frozenset({"image_features", "text_features"})

    def loss(self, features: CLIPOutput, together: Together) -> Tensor:
        """[], see `sigmoid_loss`."""
        return sigmoid_loss(
            features, together.text_ids, ranks=together.ranks, sizes=together.sizes, exchange=together.exchange
        )


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """A teacher's softmax over the batch, from stored features; a recipe asks for it by `train.distillation`."""

    kind: Literal["distillation"] = "distillation"
    weight: float
    teacher_logit_scale: float

    is_per_sample: ClassVar[Literal[False]] = False

    def needs(self, model: CLIPConfig) -> frozenset[Need]:  # noqa: ARG002
        return frozenset({"image_features", "text_features"})

    def loss(self, features: CLIPOutput, together: Together) -> Tensor:
        """[], see `shared_distillation`."""
        return shared_distillation(
            features,
            together.teacher_image_features,
            together.teacher_text_features,
            teacher_logit_scale=self.teacher_logit_scale,
            ranks=together.ranks,
            sizes=together.sizes,
        )


# What a recipe may name; the first is meant where it names no kind.
PerSampleConfig = BagOfWords | Classification | Caption
ObjectiveConfig = Contrastive | Sigmoid | PerSampleConfig
Objective = ObjectiveConfig | Distillation


def over_batch(objectives: Sequence[Objective]) -> list[OverBatch]:
    """Those whose loss needs all pairs at once."""
    return [objective for objective in objectives if objective.is_per_sample is False]


def per_sample(objectives: Sequence[Objective]) -> list[PerSampleConfig]:
    """Those that have a head, and look at one pair at a time."""
    return [objective for objective in objectives if objective.is_per_sample is True]


def all_needs(objectives: Sequence[Objective], model: CLIPConfig) -> frozenset[Need]:
    """What any of them needs."""
    return frozenset[Need]().union(*(objective.needs(model) for objective in objectives))


def trains_text(objectives: Sequence[Objective], model: CLIPConfig) -> bool:
    """Whether the text tower learns from any of them."""
    return not all_needs(objectives, model).isdisjoint({"text_features", "word_rows"})


def head_name(kind: str) -> str:
    """What the head of an objective is called among modules, whose names have no dots."""
    return kind.replace(".", "/")


def build_heads(objectives: Sequence[Objective], model: CLIPConfig, tokenizer: TextEnds) -> nn.ModuleDict:
    """The heads by the names of their objectives, on the meta device.

    Raises:
        ConfigError: what an objective from outside builds is no head.
    """
    with torch.device("meta"):
        heads = {head_name(one.kind): one.build(model, tokenizer) for one in per_sample(objectives)}
    for objective in filter(_is_outside, per_sample(objectives)):
        head = heads[head_name(objective.kind)]
        if not isinstance(head, nn.Module):
            raise ConfigError(f"`build` of {objective.kind} must give a torch module. Got {type(head).__name__}.")
        check_has(head, _OF_A_HEAD, f"the head of {objective.kind}")
    return nn.ModuleDict(cast("dict[str, nn.Module]", heads))


def draw_heads(heads: nn.ModuleDict, seed: int, counts: WordCounts | None) -> None:
    """Give new heads their first parameters.

    Args:
        heads: of `build_heads`, on a device.
        seed: of the run.
        counts: of the words of all captions, where a head wants them.

    Raises:
        ConfigError: one from outside leaves a parameter out.
    """
    for number, (name, head) in enumerate(heads.items()):
        blank(head)
        cast("Head", head).reset_parameters(generator(seed, number), counts)
        check_drawn(head, f"the head {name}")


def check_objectives(objectives: Sequence[Objective], model: CLIPConfig) -> None:
    """Refuse what no run can learn.

    Args:
        objectives: of a recipe.
        model: its sizes.

    Raises:
        ConfigError: a kind comes twice or has no weight, the model's head is another loss's, the image tower gives no
            tokens, or the text tower that names are told apart by would stay as it began; or one from outside lacks
            something.
    """
    for objective in filter(_is_outside, objectives):
        _check_facts(objective, model)
    kinds = [objective.kind for objective in objectives]
    has_own = any(map(_is_outside, objectives))
    for objective in objectives:
        if kinds.count(objective.kind) > 1:
            raise ConfigError(f"train.objectives must name each kind once. Got {objective.kind} again.")
        if not 0 < objective.weight < float("inf"):
            raise ConfigError(f"train.objectives: weight must be above 0. Got {objective.weight} of {objective.kind}.")
        if "image_tokens" in objective.needs(model) and not model.image.token_width:
            raise ConfigError(
                f"train.objectives: {objective.kind} with attends=true needs image tokens, and a {model.image.kind} "
                "tower gives none. Leave attends out, or take another model.image.kind."
            )
    fits = ("sigmoid" in kinds) == (model.head == "sigmoid") or (model.head == "sigmoid" and has_own)
    if not fits or (model.head == "sigmoid" and "contrastive" in kinds):
        raise ConfigError(
            'model.head must be "sigmoid" where train.objectives names the kind sigmoid, and "softmax" where it does '
            f"not; contrastive and sigmoid do not go together. Got {model.head} and {', '.join(kinds)}."
        )
    if not trains_text(objectives, model) and not all(one.kind == "caption" or _is_outside(one) for one in objectives):
        raise ConfigError(
            f'model.text.kind must be "bag-of-words" where no objective but {" and ".join(kinds)} learns: names are '
            f"told apart by its rows, and a {model.text.kind} tower would stay as it began. Or add contrastive."
        )


# What is asked of an objective from outside, and of its head.
_OF_ALL = ("kind", "weight", "is_per_sample", "needs")
_OF_A_HEAD = ("names_by_bundle", "reset_parameters", "scores")


def _is_outside(objective: Objective) -> bool:
    return is_outside(objective.kind)


def _check_facts(objective: Objective, model: CLIPConfig) -> None:
    name = f"the objective {objective.kind}"
    check_has(objective, _OF_ALL, name)
    if not isinstance(objective.is_per_sample, bool):
        raise ConfigError(f"is_per_sample of {objective.kind} must be True or False. Got {objective.is_per_sample!r}.")
    check_has(objective, ("wants_counts", "build", "cost") if objective.is_per_sample else ("loss",), name)
    needs, known = set(objective.needs(model)), get_args(Need)
    if unknown := [need for need in needs if need not in known]:
        raise ConfigError(f"{objective.kind} must need no more than {', '.join(known)}. Got {', '.join(unknown)}.")
    if not objective.is_per_sample and not needs <= {"image_features", "text_features"}:
        raise ConfigError(
            f"{objective.kind} must need image_features and text_features alone, as a loss over the batch gets no "
            f"more, or be per sample. Got {', '.join(sorted(needs))}."
        )
    if "word_rows" in needs and not model.text.rows_are_features:
        raise ConfigError(
            f"{objective.kind} needs word_rows, which a {model.text.kind} text tower has none of. Use "
            'model.text.kind="bag-of-words".'
        )
