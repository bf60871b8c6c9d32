"""curate/runner.py: who does the tasks. What it leaves is looked at in test_curate_pipeline.py."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from diptych.curate.runner import LocalRunner
from diptych.errors import ConfigError, DataError
from processes import started, wait_until


@dataclass(frozen=True)
class Note:
    """Writes down which process and how many threads did it."""

    out: Path
    number: int = 0

    def run(self):
        if self.number == 13:
            raise DataError("thirteen")
        if self.number == 17:
            os._exit(1)
        self.out.write_text(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}")


def test_each_task_is_done_once_by_one_of_the_workers_with_one_thread(tmp_path):
    tasks = [Note(tmp_path / str(number)) for number in range(30)]
    done, before = [], dict(os.environ)
    with LocalRunner(2) as runner:
        runner.run(tasks, lambda: done.append(1))
        runner.run([], lambda: done.append(1))
    assert dict(os.environ) == before
    assert len(done) == 30
    found = {task.out.read_text() for task in tasks}
    assert {words.split()[1] for words in found} == {"1"}
    assert len(found) <= 2
    assert str(os.getpid()) not in {words.split()[0] for words in found}


def test_the_error_of_a_task_ends_all_and_a_dead_worker_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match="thirteen"), LocalRunner(2) as runner:
        runner.run([Note(tmp_path / str(number), number) for number in range(100)], lambda: None)
    assert len(list(tmp_path.iterdir())) < 60
    with pytest.raises(DataError, match="must not end before its work"), LocalRunner(1) as runner:
        runner.run([Note(tmp_path / "x", 17)], lambda: None)


def test_what_waits_is_done_by_threads_of_this_process(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    tasks, done = [Note(tmp_path / str(number)) for number in range(20)], []
    with LocalRunner(1) as runner:
        runner.run_waiting(tasks, lambda: done.append(1))
        assert {task.out.read_text() for task in tasks} == {f"{os.getpid()} 7"}
        assert len(done) == 20
        with pytest.raises(DataError, match="thirteen"):
            runner.run_waiting([Note(tmp_path / "x", 13)], lambda: None)


def test_a_worker_ends_with_its_parent(tmp_path):
    code = (
        "import os, sys\n"
        "from diptych.curate.runner import LocalRunner\n"
        "if __name__ == '__main__':\n"
        "    with LocalRunner(1) as runner:\n"
        "        print(*[p.pid for p in runner._pool._processes.values()], flush=True)\n"
        "        sys.stdin.read()\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    with started([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        worker = int(process.stdout.readline())
        process.kill()
        process.wait()
        wait_until(lambda: has_ended(worker))


def has_ended(number: int) -> bool:
    state = Path(f"/proc/{number}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_workers_are_at_least_one():
    with pytest.raises(ConfigError, match="at least 1"):
        LocalRunner(0)
