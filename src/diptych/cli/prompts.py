"""`diptych evaluate prompts`: the prompt workbench."""

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts.types import PositiveInt

from diptych.cli.console import print_table
from diptych.cli.evaluate import print_prompts
from diptych.cli.options import AS_USUAL, BY_THE_RULE, ModelOptions, PromptOptions

if TYPE_CHECKING:
    from diptych.eval.workbench import PromptSearch

_SHOWN = 10  # rows of a table


def prompts(
    *,
    data: Path,
    split: str | None = None,
    choose_split: str | None = None,
    most: PositiveInt = 7,
    collision: float = 0.97,
    prompts: PromptOptions = BY_THE_RULE,
    out: Path | None = None,
    options: ModelOptions = AS_USUAL,
) -> None:
    """Score prompt templates one by one, choose the best few, and show what each helps or hurts.

    Templates are scored and chosen on one part of the pictures, and what was chosen is measured on another. Without
    templates of yours, of the table of tasks or of the data, the 80 of ImageNet are tried.

    Parameters
    ----------
    data
        A folder of labelled pictures, as for `diptych evaluate zero-shot`.
    split
        The subfolder that the final numbers are measured on. By default that of the task, else test.
    choose_split
        The subfolder that templates are chosen on. By default half of each class of `--split`, which the final numbers
        then leave out.
    most
        Choose at most so many.
    collision
        Name two classes when the cosine of their texts is at least this.
    out
        A JSON file for the numbers of all templates.
    """
    templates = prompts.read()

    from diptych.eval.find_sets import one_set
    from diptych.eval.result_file import write_record
    from diptych.eval.workbench import PROMPTS_FORMAT, search_prompts

    found = search_prompts(
        options.features,
        one_set(data, "zero-shot", split=split),
        options.asked(templates),
        choose_split=choose_split,
        most=most,
        collision=collision,
    )
    _print_templates(found)
    _print_chosen(found)
    if out:
        write_record(out, PROMPTS_FORMAT, found)


def _print_templates(found: "PromptSearch") -> None:
    """The best and the worst, with the class that each helps and hurts most."""
    every, names = found.templates, found.prompts.names
    rows = []
    for one in every if len(every) <= 2 * _SHOWN else [*every[:_SHOWN], *every[-_SHOWN:]]:
        effect = [share or 0.0 for share in one.effect_by_class]
        helped, hurt = max(effect), min(effect)
        rows.append(
            [
                one.template,
                f"{one.top1:.2%}",
                f"{names[effect.index(helped)]} {100 * helped:+.0f}" if helped > 0 else "-",
                f"{names[effect.index(hurt)]} {100 * hurt:+.0f}" if hurt < 0 else "-",
            ]
        )
    print_table(rows, header=["template", "top-1", "helps most", "hurts most"], numbers=[1])
    low, median, high = found.spread
    print(
        f"\n{len(every)} templates on {found.chosen_on:,} pictures: top-1 {low:.2%} to {high:.2%}, median "
        f"{median:.2%}; {found.disagreement:.1%} of pictures change their class with the template."
    )
    print_prompts(found.prompts, found.shortened)
    print()


def _print_chosen(found: "PromptSearch") -> None:
    from diptych.eval.result_tables import percent, span

    print_table(
        [[str(number), one.template, percent(one.top1)] for number, one in enumerate(found.chosen, 1)],
        header=["chosen", "template", "top-1 with all before it"],
        numbers=[0, 2],
    )
    print()
    print_table(
        [[name, percent(one.top1), span(one.interval), f"{one.n:,}"] for name, one in found.measured.items()],
        header=["on other pictures", "top-1", "95% interval", "n"],
        numbers=[1, 2, 3],
    )
    if found.collisions:
        print()
        print_table(
            [[first, second, f"{cosine:.3f}"] for first, second, cosine in found.collisions[:_SHOWN]],
            header=["class", "hard to tell from", "cosine"],
            numbers=[2],
        )
