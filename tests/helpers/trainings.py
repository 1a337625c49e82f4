"""Trainings in tests, without what takes longer than they do."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from kneessl import cli
from kneessl.errors import UserError
from kneessl.experiments.jobs import Job, done, finished
from kneessl.workers.apart import Submit


@contextmanager
def without_reports() -> Iterator[None]:
    """No page after a pre-training or evaluation: its figures take longer than a training on tiny pictures."""
    with pytest.MonkeyPatch.context() as patch:
        for written in ("evaluate.evaluate.write_evaluation_report", "report.run_page.write_run_page"):
            patch.setattr(f"kneessl.{written}", lambda *_, **__: None)
        yield


def type_words(words: list[str]) -> None:
    """Run a job's command."""
    cli.run(words[0], words[1:])


def in_this_process(
    jobs: Sequence[Job], submit: Submit, title: str, run: Callable[[list[str]], None] = type_words
) -> None:
    """`run_all` without its processes, which take longer to start than to train; experiments/test_compare.py has them.

    Args:
        jobs: As for `run_all`.
        submit: Not used; one after the other.
        title: Not used.
        run: What is done with a command's words.
    """
    for job in jobs:
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / "failure.txt").unlink(missing_ok=True)
        try:
            for words in [] if done(job) else job.commands():
                if not finished(words):
                    run(words)
        except UserError as error:
            (job.folder / "failure.txt").write_text(str(error))
