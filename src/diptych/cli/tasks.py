"""`diptych evaluate tasks`: what a model can be measured on, and where the data is or how to get it."""

import json
from pathlib import Path

from diptych.cli.console import print_table


def list_tasks(*names: str, data: Path = Path("data"), json_: bool = False) -> None:
    """List the evaluation tasks: kind, metric, sizes, licence, and the data's folder or how to get it.

    Parameters
    ----------
    names
        Tasks, by name; by default all of them.
    data
        The folder that holds the data sets, each in a folder of the task's name.
    json_
        Print JSON, with all that is known of each task.
    """
    from diptych.eval.tasks import find_task, task_data, tasks

    chosen = [find_task(name) for name in names] or list(tasks())
    folders = {task.name: task_data(task, data) for task in chosen}
    if json_:
        rows = []
        for task in chosen:
            facts = {key: dict(value) if key == "renamed" else value for key, value in vars(task).items()}
            rows.append(facts | {"data": str(folders[task.name]) if folders[task.name] else None})
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return

    def size(number: int | None) -> str:
        return "-" if number is None else f"{number:,}"

    print_table(
        [
            (
                task.name,
                task.kind,
                task.metric,
                size(task.classes),
                size(task.train),
                size(getattr(task, task.split)),
                task.licence,
                f"in {folders[task.name]}" if folders[task.name] else f"absent: {task.obtain}",
            )
            for task in chosen
        ],
        header=("task", "kind", "metric", "classes", "train", "measured", "licence", "data"),
        numbers=(3, 4, 5),
    )
    there = sum(folder is not None for folder in folders.values())
    print(f"{there} of {len(chosen)} tasks have their data in {data}.")
