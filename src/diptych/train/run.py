"""What a run holds, and how it begins: anew, from a trained model, or from its newest checkpoint."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diptych.config import to_dict, to_toml
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError
from diptych.files import shown
from diptych.model.clip import CLIP
from diptych.pairs.pipeline import Batch, pair_sources, vocabulary_texts
from diptych.pairs.sources import Pairs
from diptych.torch_runtime import fast_dtype, generator
from diptych.train.checkpoint import (
    OF_HEADS,
    Checkpoint,
    group_numbers,
    has_digests,
    held_optimizer_tensors,
    make_room,
    of_heads,
    optimizer_tensors,
    restore_group_numbers,
    restore_optimizer,
    with_prefix,
)
from diptych.train.compression import ERROR, FACTOR
from diptych.train.counts import RunCounts
from diptych.train.distributed import Ranks, Spread, whole
from diptych.train.ema import Average
from diptych.train.frozen import FrozenFeatures
from diptych.train.heads import Heads
from diptych.train.learner import Learner
from diptych.train.muon import Muon
from diptych.train.objectives import build_heads, draw_heads, per_sample, trains_text
from diptych.train.optim import adamw, parameter_groups
from diptych.train.own_optimizer import own_optimizer
from diptych.train.phases import fitted, stage_at
from diptych.train.recipe import TrainConfig, TrainRecipe, difference, recipe_of, with_absolute_paths, without_folders
from diptych.train.schedule import schedule_of
from diptych.train.shares import read_shares
from diptych.train.word_classes import WordCounts, count_words
from diptych.weights.bundle import Bundle
from diptych.weights.folder import About
from diptych.weights.normalise import normalise
from diptych.weights.registry import load_in_torch


def check_ranks(recipe: TrainRecipe, ranks: Ranks) -> None:
    """Refuse what several processes cannot do together.

    Raises:
        ConfigError: the batch cannot be shared evenly.
    """
    if recipe.train.batch_size % ranks.count:
        raise ConfigError(
            "train.batch_size must be a multiple of the number of processes, which share it. "
            f"Got {recipe.train.batch_size} pairs for {ranks.count} processes."
        )


def open_run(recipe: TrainRecipe, ranks: Ranks, out: Path, newest: Path | None) -> "Run":
    """A run where it stands; to be called by all processes.

    Args:
        recipe: of the run.
        ranks: the processes.
        out: its folder.
        newest: the checkpoint in it to go on from; None for a run that begins.

    Raises:
        ConfigError: the checkpoint is of another recipe or of other data, or `start_from` holds a model of other sizes.
        DataError: a source cannot be read, or there is no pair in it.
        MissingExtraError: grain is not installed.
        WeightsError: the checkpoint is damaged, or `start_from` cannot be read.
    """
    sources = pair_sources(recipe.data)
    notes = [shown(note) for source in sources for note in source.check()]
    if not trains_text(recipe.objectives, recipe.model):
        kinds = [objective.kind for objective in per_sample(recipe.objectives)]
        head = f", its {' and '.join(kinds)} head does" if kinds else ""
        notes.append(
            f"no objective trains the text tower, which stays as it began: the bundle tells no names apart{head}."
        )
    if newest and not has_digests(newest):
        notes.append(f"{newest} is of an older diptych and has no digests: damage to it would not be noticed.")
    return Run(recipe, sources, _saved(newest, out, recipe, sources) if newest else None, ranks, notes)


class Run:
    """What changes from step to step, anew or from a checkpoint. The weights are changed by `update.train_step`.

    Args:
        recipe: everything that decides the run.
        sources: the opened sources of its data.
        saved: where the run stood; None for one that begins.
        ranks: the processes; each makes its own, all at once.
        notes: what was assumed on the way, a sentence each.
    """

    def __init__(
        self,
        recipe: TrainRecipe,
        sources: Sequence[Pairs],
        saved: Checkpoint | None,
        ranks: Ranks,
        notes: Sequence[str] = (),
    ) -> None:
        self.recipe = recipe
        self.notes = notes
        self.sources = sources
        self.ranks = ranks
        self.data = [source.fingerprint() for source in sources]  # as it was at the start
        self.step = saved.step if saved else 0  # updates done
        self.metrics: Mapping[str, float] = saved.metrics if saved else {}
        self.reference: Mapping[str, float] = saved.reference if saved else {}
        self.counts = RunCounts(saved.counts if saved else {}, ranks.laps)
        self.device = ranks.device
        # From the checkpoint: a second measurement may come to another type, and to other weights.
        self.precision = saved.precision if saved else ranks.share(lambda: _precision(recipe, self.device))
        self.schedule = schedule_of(recipe.train.schedule)
        self.loss_scale = _LossScale(saved.loss_scale if saved else {}, wanted=self.precision == "float16")
        self._hold(saved)

    def _hold(self, saved: Checkpoint | None) -> None:
        """Build what has the sizes of the phase that the next step belongs to."""
        recipe, settings = self.recipe, self.recipe.train
        stage = stage_at(recipe, self.step)
        if saved and not saved.shares:  # which are of the size that they were written at, until `enter_phase`
            saved = fitted(saved, stage.image_size)
        self.bundle = saved.bundle if saved else _first_bundle(recipe, self.sources, self.ranks, stage.image_size)
        if saved and saved.shares:
            self.bundle.model.to_empty(device=self.device)
        elif saved or recipe.start_from:
            # Mapped weights lie where the file has them; the last bits of a product depend on where its factors begin.
            weights = {name: value.clone() for name, value in self.bundle.model.state_dict().items()}
            self.bundle.model.load_state_dict(weights, assign=True)
        self.model: CLIP = self.bundle.model.to(device=self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.heads = self._built_heads(saved).to(self.device)
        for tower in self._frozen():
            tower.requires_grad_(False)
        if not self._trains_text:  # nobody looks at its factor either
            self.model.logit_scale.requires_grad_(False)
        self.train_mode()
        self.model.recompute_blocks(settings.activation_checkpointing)
        self.model.pack_texts(not settings.compile)  # another number of tokens each step would be compiled each step
        if settings.compile:
            for block in self.model.blocks():
                block.compile()
        self.learner = Learner(self.model, self.heads, recipe.objectives)
        blocks, compression = self.model.blocks(), settings.gradient_compression
        self.spread = Spread(self.learner, self.ranks, settings.parallel, blocks, compression)
        self.optimizer = _optimizer(self.model, self.heads, settings)
        if saved and saved.shares:
            make_room(self.model, self.optimizer, saved.shares)
            make_room(self.heads, self.optimizer, saved.shares, OF_HEADS)
        elif saved:
            restore_optimizer(self.model, self.optimizer, saved.optimizer)
            restore_optimizer(self.heads, self.optimizer, of_heads(saved.optimizer))
            restore_group_numbers(self.optimizer, saved.optimizer)
        # Of pictures that come again; what differs at each visit would fill the memory for nothing.
        self.frozen_features = None
        comes_again = "image" in settings.freeze and recipe.data.augment.is_fixed and not settings.patch_dropout
        if comes_again and "image_tokens" not in self.learner.needs:
            size = settings.micro_batch_size or settings.batch_size // self.ranks.count
            self.frozen_features = FrozenFeatures(self._encode_image, batch_size=size)
        decay = settings.ema_decay
        average = saved.average if saved and not saved.shares else None
        self.average = Average(self.model, decay, average) if decay else None
        theirs = None if average is None else of_heads(average)
        self.average_of_heads = Average(self.heads, decay, theirs) if decay else None
        if saved and saved.shares:
            read_shares(saved.shares, self.held_tensors(), optional=(ERROR, FACTOR))
        elif saved:
            self._restore_left_out(saved.optimizer)

    @property
    def _trains_text(self) -> bool:
        return trains_text(self.recipe.objectives, self.recipe.model)

    def _built_heads(self, saved: Checkpoint | None) -> nn.ModuleDict:
        """The heads of the objectives; drawn anew for a run that begins, after a look at its captions if need be."""
        if saved and not saved.shares:
            return saved.heads.build(self.bundle)
        recipe, text = self.recipe, self.bundle.model.config.text
        heads = build_heads(recipe.objectives, self.bundle.model.config, self.bundle.tokenizer)
        heads.to_empty(device=torch.empty(0).device)
        if saved:  # whose shares come later
            return heads
        counts, is_new_bag = None, text.rows_are_features and not recipe.start_from
        if is_new_bag or any(objective.wants_counts for objective in per_sample(recipe.objectives)):
            counts = self.ranks.share(lambda: self._count_words(text.vocab_size))
        if is_new_bag and counts:
            self.bundle.model.text.load_state_dict({"token_weights": counts.weights()}, strict=False)
        draw_heads(heads, recipe.seed, counts)
        return heads

    def _count_words(self, vocab_size: int) -> WordCounts:
        texts = vocabulary_texts(self.sources, self.recipe.data)
        return count_words(texts, self.bundle.tokenizer, vocab_size=vocab_size)

    def enter_phase(self) -> bool:
        """Take on the image size of the next step; whether it is another one. To be called by all processes.

        It goes by way of a checkpoint in memory, so that a run that was stopped between two phases goes on as this one.
        """
        if stage_at(self.recipe, self.step).image_size == self.bundle.preprocess.image_size:
            return False
        saved = self.checkpoint()
        self.spread.close()
        self._hold(saved)
        return True

    def train_mode(self) -> None:
        """What differs in training is on, but in frozen towers and for frozen batch statistics."""
        self.model.train()
        for tower in self._frozen():
            tower.eval()
        if self.recipe.train.freeze_batch_statistics:
            self.model.freeze_batch_statistics()

    def _frozen(self) -> list[torch.nn.Module]:
        names = {*self.recipe.train.freeze, *(() if self._trains_text else ("text",))}
        return [getattr(self.model, name) for name in sorted(names)]

    def pixels(self, images: Tensor) -> Tensor:
        """uint8 to what the towers take; see `normalise`."""
        pixels = normalise(self.bundle.preprocess, images)
        return pixels.contiguous(memory_format=torch.channels_last) if pixels.ndim == 4 else pixels

    def autocast(self) -> torch.autocast:
        """The run's type of number, for a forward pass."""
        dtype = getattr(torch, self.precision)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32)

    def _encode_image(self, images: Tensor) -> Tensor:
        with self.autocast():
            return self.model.encode_image(self.pixels(images))

    def count(self, batch: Batch) -> list[int]:
        """Count one batch, of which each process has a part; how many pairs each has.

        Raises:
            DataError: too many samples are bad, in all or in this batch.
        """
        parts = self.ranks.collect((len(batch.images), batch.truncated, dict(batch.bad)))
        self.counts.add(parts, max_bad=self.recipe.data.max_bad)
        return [size for size, _, _ in parts]

    def whole_bundle(self) -> Bundle:
        """The bundle, where processes hold shares put together; to be called by all."""
        if self.ranks.count == 1 or self.recipe.train.parallel == "ddp":
            return self.bundle
        model = CLIP(self.bundle.model.config)
        model.load_state_dict({name: whole(value) for name, value in self.model.state_dict().items()}, assign=True)
        return dataclasses.replace(self.bundle, model=model.train())

    def measured_bundle(self) -> Bundle:
        """What evaluators are given and the run ends with: the average of the weights where one is kept."""
        return self.average.bundle(self.bundle) if self.average else self.whole_bundle()

    def whole_heads(self) -> Heads:
        """The heads, where processes hold shares put together; to be called by all."""
        return self._stored({name: whole(value) for name, value in self.heads.state_dict().items()})

    def measured_heads(self) -> Heads:
        """The heads of `measured_bundle`; to be called by all."""
        return self._stored(self.average_of_heads.tensors()) if self.average_of_heads else self.whole_heads()

    def _stored(self, tensors: Mapping[str, Tensor]) -> Heads:
        return Heads(objectives=per_sample(self.recipe.objectives), tensors=tensors)

    def checkpoint(self) -> Checkpoint:
        """Where the run stands, tensors whole; to be called by all processes."""
        left_out = self._left_out()
        return dataclasses.replace(
            self.checkpoint_without_tensors(),
            bundle=self.whole_bundle(),
            heads=self.whole_heads(),
            optimizer=optimizer_tensors(self.model, self.optimizer)
            | with_prefix(optimizer_tensors(self.heads, self.optimizer))
            | group_numbers(self.optimizer)
            | left_out,
            average=self._averages(),
        )

    def checkpoint_without_tensors(self) -> Checkpoint:
        """Where the run stands; `held_tensors` are the rest."""
        return Checkpoint(
            step=self.step,
            bundle=self.bundle,
            optimizer={},
            counts=self.counts.plain(),
            metrics=self.metrics,
            recipe=to_dict(self.recipe),
            precision=self.precision,
            data=self.data,
            loss_scale=self.loss_scale.plain(),
            reference=self.reference,
        )

    def held_tensors(self) -> dict[str, Tensor]:
        """All tensors that change from step to step, as this process holds them; to be called by all."""
        average, average_of_heads = self.average, self.average_of_heads
        parts = {
            "model": self.model.state_dict() | with_prefix(self.heads.state_dict()),
            "optimizer": held_optimizer_tensors(self.model, self.optimizer)
            | with_prefix(held_optimizer_tensors(self.heads, self.optimizer))
            | self._left_out(),
            "average": average.held() | with_prefix(average_of_heads.held()) if average and average_of_heads else {},
        }
        return {f"{part}.{name}": value for part, tensors in parts.items() for name, value in tensors.items()}

    def _left_out(self) -> dict[str, Tensor]:
        """Of gradients that were compressed, the same in all processes from here on; to be called by all."""
        if not self.spread.power:
            return {}
        self.spread.power.share_errors()
        return {_stored_name(name): value for name, value in self.spread.power.tensors().items()}

    def _restore_left_out(self, saved: Mapping[str, Tensor]) -> None:
        """Take what `_left_out` gave; what is missing, or of another size, begins anew."""
        for name, value in self._left_out().items():
            if name in saved and saved[name].shape == value.shape:
                value.copy_(saved[name])

    def _averages(self) -> dict[str, Tensor]:
        if not self.average or not self.average_of_heads:
            return {}
        return self.average.tensors() | with_prefix(self.average_of_heads.tensors())


def _stored_name(name: str) -> str:
    """Of a parameter of a `Learner`, its name in a checkpoint."""
    return name.removeprefix("model.") if name.startswith("model.") else OF_HEADS + name.removeprefix("heads.")


def _saved(newest: Path, out: Path, recipe: TrainRecipe, sources: Sequence[Pairs]) -> Checkpoint:
    checkpoint = Checkpoint.load(newest)
    cure = "Choose another folder, or remove this one to start over."
    try:
        # Options that came since have their defaults; paths were from the current directory once.
        began_as = _comparable(to_dict(recipe_of(checkpoint.recipe)))
    except ConfigError as error:
        raise ConfigError(f"{out} holds a run that another version of diptych began. {error} {cure}") from None
    if change := difference(began_as, _comparable(to_dict(recipe))):
        raise ConfigError(f"{out} holds a run of another recipe ({change}). {cure}")
    for source, fingerprint in zip(sources, checkpoint.data, strict=True):
        if source.fingerprint() != fingerprint:
            raise ConfigError(f"{out} holds a run of other data: the pairs of {source.path} were changed. {cure}")
    return checkpoint


def _comparable(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return with_absolute_paths(recipe, Path.cwd())


def _first_bundle(recipe: TrainRecipe, sources: Sequence[Pairs], ranks: Ranks, image_size: int) -> Bundle:
    about = About(
        source=f"diptych recipe {recipe.name}",
        licence=recipe.licence,
        data=recipe.about_data,
        recipe=to_toml(without_folders(recipe)),
    )
    if recipe.start_from:
        return dataclasses.replace(_loaded(recipe, image_size), about=about)
    tokenizer = ranks.share(lambda: _new_tokenizer(recipe, sources))
    preprocess = dataclasses.replace(recipe.preprocess, image_size=image_size)
    image = dataclasses.replace(recipe.model.image, image_size=image_size)
    model = CLIP(dataclasses.replace(recipe.model, image=image), generator(recipe.seed))
    return Bundle(model=model, preprocess=preprocess, tokenizer=tokenizer, about=about)


def _loaded(recipe: TrainRecipe, image_size: int) -> Bundle:
    bundle = load_in_torch(recipe.start_from, image_size=image_size)
    if bundle.model.config.text.context_length != recipe.model.text.context_length:
        bundle = bundle.with_context_length(recipe.model.text.context_length)
    bundle = dataclasses.replace(bundle, model=bundle.model.with_head(recipe.model.head))
    theirs = {"model": to_dict(bundle.model.config), "preprocess": to_dict(bundle.preprocess)}
    ours = {"model": to_dict(recipe.model), "preprocess": to_dict(recipe.preprocess)}
    for sizes in (theirs, ours):
        sizes["model"]["text"].pop("end_token_id", None)  # a fact of the vocabulary, which comes with the bundle
        sizes["model"]["image"]["image_size"] = sizes["preprocess"]["image_size"] = image_size  # of the first phase
    if change := difference(theirs, ours):
        raise ConfigError(
            f"model and preprocess must be those of start_from={recipe.start_from}, but for the image size and the "
            f"context length: {change}."
        )
    bundle.model.float()
    return bundle


def _new_tokenizer(recipe: TrainRecipe, sources: Sequence[Pairs]) -> Tokenizer:
    return Tokenizer.train(
        vocabulary_texts(sources, recipe.data),
        vocab_size=recipe.tokenizer.vocab_size,
        context_length=recipe.model.text.context_length,
    )


def _optimizer(model: CLIP, heads: nn.Module, settings: TrainConfig) -> torch.optim.Optimizer:
    """Of the towers' parameters and of those of objectives, which Muon leaves to AdamW."""
    decay = settings.weight_decay
    groups = [
        *parameter_groups(model, weight_decay=decay, layer_decay=settings.layer_decay, optimizer=settings.optimizer),
        *parameter_groups(heads, weight_decay=decay),
    ]
    betas, epsilon, state = (settings.beta1, settings.beta2), settings.epsilon, settings.optimizer_state
    if settings.optimizer == "muon":
        momentum, every = settings.momentum, settings.orthogonal_every
        return Muon(groups, momentum=momentum, every=every, betas=betas, epsilon=epsilon, state=state)
    if settings.optimizer == "adamw":
        return adamw(groups, betas=betas, epsilon=epsilon, state=state)
    return own_optimizer(settings.optimizer, groups, betas=betas, epsilon=epsilon)


def _precision(recipe: TrainRecipe, device: torch.device) -> str:
    auto = recipe.train.precision == "auto"
    return str(fast_dtype(device)).removeprefix("torch.") if auto else recipe.train.precision


class _LossScale:
    """The factor on the loss that keeps float16 gradients from vanishing; 1 for the other types.

    It is halved where the gradients overflow, and the batch is taken again; after 2,000 steps without, it is doubled
    (arXiv:1710.03740, section 3.2; numbers as torch's GradScaler has them, which leaves the batch out).
    """

    def __init__(self, saved: Mapping[str, float], *, wanted: bool) -> None:
        self._factor = saved.get("factor", 2.0**16 if wanted else 1.0)
        self._steps = int(saved.get("steps", 0))  # since the factor changed
        self._wanted = wanted

    def tries(self) -> Iterator[float]:
        """Factors for one batch, until one fits."""
        self._steps += 1
        if self._wanted and self._steps > 2000:
            self._factor, self._steps = 2 * self._factor, 1
        yield self._factor
        while self._factor > 1:
            self._factor, self._steps = self._factor / 2, 1
            yield self._factor

    def plain(self) -> dict[str, float]:
        return {"factor": self._factor, "steps": self._steps} if self._wanted else {}
