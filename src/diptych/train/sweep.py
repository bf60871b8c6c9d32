"""Many runs of one recipe: a grid over options or draws of them, a folder a run; it goes on where it was stopped."""

import hashlib
import itertools
import json
import math
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from diptych.config import to_dict
from diptych.errors import ConfigError, DataError, DiptychError
from diptych.files import is_locked, write_json, write_text
from diptych.runtime import usable_cores
from diptych.train.recipe import TrainRecipe, difference, read_recipe
from diptych.train.watch import WatchedRun, curves

State = Literal["waiting", "starting", "running", "stalled", "stopped", "finished", "failed"]
Value = tuple[float, float]  # step, value

RECORD = "sweep.json"
OUTPUT = "output.txt"  # what a run printed
FAULT = "failed.txt"  # the last of it, where the run failed
_RANGE = re.compile(r"\s*([-+\d.eE]+?)\s*\.\.\s*([-+\d.eE]+)\s*")
_EVERY = 0.2  # seconds between two looks at the processes


@dataclass(frozen=True)
class Axis:
    """An option, and what is tried for it: values as TOML has them, or a range."""

    option: str  # dotted, e.g. "train.learning_rate"
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_whole: bool = False

    def draw(self, chance: random.Random) -> str:
        """One value; of a range above 0 evenly in the logarithm."""
        if self.values:
            return chance.choice(self.values)
        if self.low > 0:
            value = math.exp(chance.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = chance.uniform(self.low, self.high)
        return str(round(value)) if self.is_whole else f"{value:.4g}"


@dataclass(frozen=True)
class Trial:
    """One run of a sweep."""

    options: Mapping[str, str]  # put over the recipe; values as TOML has them

    @property
    def name(self) -> str:
        """Its folder's, a function of the options."""
        last = [option.rpartition(".")[2] for option in self.options]
        keys = last if len(set(last)) == len(last) else list(self.options)
        told = ",".join(f"{key}={value}" for key, value in zip(keys, self.options.values(), strict=True))
        plain = re.sub(r"[^\w.,=+-]+", "-", told)
        if plain == told and len(told) <= 100:
            return told
        return f"{plain[:90]}-{hashlib.sha256(json.dumps(dict(self.options)).encode()).hexdigest()[:6]}"

    @property
    def overrides(self) -> list[str]:
        return [f"{option}={value}" for option, value in self.options.items()]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A run of a sweep as its folder tells it."""

    trial: Trial
    state: State
    step: int = 0  # updates done
    value: float | None = None  # the newest of the sweep's metric
    curve: Sequence[Value] = ()  # of that metric
    error: str = ""  # of one that failed, its last line


def read_axis(text: str) -> Axis:
    """An option and its values: `train.learning_rate=1e-3,2e-3`, or a range, `train.learning_rate=1e-4..1e-2`.

    Raises:
        ConfigError: it is neither.
    """
    option, equals, told = text.partition("=")
    if not equals or not option.strip() or not told.strip():
        raise ConfigError(f"--over takes OPTION=VALUE,VALUE or OPTION=LOW..HIGH. Got {text!r}.")
    if match := _RANGE.fullmatch(told):
        try:
            low, high = float(match[1]), float(match[2])
        except ValueError:
            raise ConfigError(f"--over {option}: a range is of two numbers, LOW..HIGH. Got {told!r}.") from None
        if not low < high < math.inf:
            raise ConfigError(f"--over {option}: LOW must be below HIGH. Got {told}.")
        return Axis(option.strip(), low=low, high=high, is_whole=match[1].isdigit() and match[2].isdigit())
    values = tuple(value.strip() for value in _at_commas(told))
    if not all(values):
        raise ConfigError(f"--over {option} must have a value between its commas. Got {told!r}.")
    return Axis(option.strip(), tuple(dict.fromkeys(values)))


def _at_commas(text: str) -> Iterator[str]:
    """Parts between commas that stand in no bracket and no quotes."""
    depth, quote, start = 0, "", 0
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        elif character == "," and depth == 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]


def grid(axes: Sequence[Axis]) -> list[Trial]:
    """Each value with each; the last option changes fastest.

    Raises:
        ConfigError: an option has a range.
    """
    for axis in axes:
        if not axis.values:
            raise ConfigError(
                f"--over {axis.option} is a range, which a grid cannot try whole. Add --random or --study."
            )
    names = [axis.option for axis in axes]
    return [Trial(dict(zip(names, row, strict=True))) for row in itertools.product(*(axis.values for axis in axes))]


def draws(axes: Sequence[Axis], count: int, seed: int) -> list[Trial]:
    """So many draws, each a function of seed and number, so that a longer list begins with the shorter one.

    Equal ones are one.
    """
    trials = [
        Trial({axis.option: axis.draw(random.Random(f"{seed}/{number}/{axis.option}")) for axis in axes})
        for number in range(count)
    ]
    return list({trial.name: trial for trial in trials}.values())


def lower_is_better(metric: str) -> bool:
    """Whether a metric is a loss."""
    return metric.rpartition("/")[2] == "loss"


def default_metric(recipe: TrainRecipe) -> str:
    """Top-1 of the first set that a recipe measures, else the loss."""
    if not recipe.evaluate:
        return "loss"
    return f"{Path(recipe.evaluate[0].removeprefix('embedded:')).name}/top1"


def check_trials(trials: Sequence[Trial], out: Path, recipe: Path, overrides: Sequence[str]) -> None:
    """Refuse what cannot be run, before anything is.

    Raises:
        ConfigError: an option is unknown or of the wrong type; or a folder holds a run of another recipe.
    """
    for trial in trials:
        wanted = read_recipe(recipe, [*overrides, *trial.overrides])
        found = out / trial.name / "recipe.toml"
        if found.is_file() and (change := difference(to_dict(read_recipe(found)), to_dict(wanted))):
            raise ConfigError(
                f"{out / trial.name} holds a run of another recipe ({change}). Choose another --out, or remove it."
            )


@dataclass
class _Process:
    trial: Trial
    process: "subprocess.Popen[str]"


def run_trials(
    next_trial: Callable[[], Trial | None],
    out: Path,
    command: Callable[[Trial], Sequence[str]],
    *,
    jobs: int,
    stop_requested: Callable[[], bool],
    on_start: Callable[[Trial], None],
    on_end: Callable[[Trial, str], None],
) -> bool:
    """Run trials, so many at once; those that are finished already are not run again.

    A run that another process works on, such as one whose sweep was killed, is waited for.

    Args:
        next_trial: gives another one whenever there is room; None: no more.
        out: folder of the sweep.
        command: of a process that trains one trial into its folder and goes on with what is there.
        jobs: processes at once; they share the cores.
        stop_requested: whether to end; the processes are then asked to save.
        on_start: gets each trial that is run.
        on_end: gets each trial with an empty string, or what it said when it failed.

    Returns:
        Whether all ended; False after a stop request.
    """
    environment = dict(os.environ)
    if jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // jobs)))
    running: list[_Process] = []
    waiting: Trial | None = None
    is_last = False
    while running or not is_last:
        if stop_requested():
            _stop(running)
            return False
        while not is_last and len(running) < jobs:
            waiting = waiting or next_trial()  # no sooner than there is room: it may be chosen by those that ended
            if waiting is None:
                is_last = True
            elif waiting.name in [one.trial.name for one in running] or is_locked(out / waiting.name):
                break
            elif (out / waiting.name / "results.json").is_file():
                on_end(waiting, "")
                waiting = None
            else:
                on_start(waiting)
                running.append(_Process(waiting, _start(command(waiting), out / waiting.name, environment)))
                waiting = None
        for one in [one for one in running if one.process.poll() is not None]:
            running.remove(one)
            on_end(one.trial, _fault(one, out))
        time.sleep(_EVERY)
    return True


def _start(command: Sequence[str], folder: Path, environment: dict[str, str]) -> "subprocess.Popen[str]":
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAULT).unlink(missing_ok=True)
    with (folder / OUTPUT).open("a", encoding="utf-8") as file:
        # In a session of its own: Ctrl-C is for the sweep, which asks its runs to save.
        return subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, text=True, start_new_session=True
        )


def _stop(running: Sequence[_Process]) -> None:
    for one in running:
        one.process.send_signal(signal.SIGTERM)
    for one in running:
        one.process.wait()


def _fault(one: _Process, out: Path) -> str:
    if one.process.returncode == 0:
        return ""
    fault = last_line(out / one.trial.name) or f"exit code {one.process.returncode}"
    write_text(out / one.trial.name / FAULT, f"{fault}\n")
    return fault


def last_line(folder: Path) -> str:
    """The last that a run said; empty where it has said nothing."""
    try:
        text = (folder / OUTPUT).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep's folder says of it, beside the runs."""

    name: str
    metric: str
    trials: Sequence[Trial]

    def write(self, out: Path) -> None:
        """Put it down, for whoever watches."""
        write_json(
            out / RECORD,
            {"name": self.name, "metric": self.metric, "runs": [dict(trial.options) for trial in self.trials]},
        )


def read_sweep(folder: Path) -> Sweep:
    """The record of a sweep.

    Raises:
        DataError: there is none, or it is damaged.
    """
    try:
        plain = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return Sweep(name=plain["name"], metric=plain["metric"], trials=[Trial(options) for options in plain["runs"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} must be the folder of a sweep, with {RECORD}: {error}.") from error


def with_earlier(trials: Sequence[Trial], out: Path) -> list[Trial]:
    """Runs to come, and those that the folder's record has besides: they stay in the table.

    Raises:
        ConfigError: those are over other options.
        DataError: the record is damaged.
    """
    if not (out / RECORD).is_file():
        return list(trials)
    names = {trial.name for trial in trials}
    others = [trial for trial in read_sweep(out).trials if trial.name not in names]
    if trials and others and set(others[0].options) != set(trials[0].options):
        raise ConfigError(
            f"{out} holds a sweep over {', '.join(others[0].options)}. Got {', '.join(trials[0].options)}: choose "
            "another --out."
        )
    return [*trials, *others]


def outcomes(sweep: Sweep, folder: Path, now: float) -> list[Outcome]:
    """How each run stands, the best first, then those without a number.

    Args:
        sweep: of the folder.
        folder: of the sweep.
        now: the time of day, seconds.
    """
    found = [_outcome(trial, folder / trial.name, sweep.metric, now) for trial in sweep.trials]
    sign = 1 if lower_is_better(sweep.metric) else -1
    return sorted(found, key=lambda one: (one.value is None, sign * (one.value or 0.0)))


def _outcome(trial: Trial, folder: Path, metric: str, now: float) -> Outcome:
    error = (folder / FAULT).read_text(encoding="utf-8").strip() if (folder / FAULT).is_file() else ""
    if not (folder / ".lock").is_file():
        return Outcome(trial=trial, state="failed" if error else "waiting", error=error)
    run = WatchedRun(folder)
    try:
        run.update(now)
    except DiptychError as fault:
        return Outcome(trial=trial, state="failed", error=str(fault))
    curve = curves(run.lines).get(metric, [])
    is_finished = (folder / "results.json").is_file()
    return Outcome(
        trial=trial,
        state="finished" if is_finished else "failed" if error and not run.is_held else run.state,
        step=int(run.lines[-1]["step"]) if run.lines else 0,
        value=curve[-1][1] if curve else None,
        curve=curve,
        error=error,
    )


def plain_outcome(one: Outcome) -> dict[str, Any]:
    """For JSON."""
    return {
        "run": one.trial.name,
        "options": dict(one.trial.options),
        "state": one.state,
        "step": one.step,
        "value": one.value,
        **({"error": one.error} if one.error else {}),
    }
