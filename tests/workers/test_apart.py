import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers.pieces import end_at_once_apart, say_where, wait_to_be_stopped

from kneessl.workers.apart import INTERRUPTED, apart


def appears(path: Path) -> bool:
    """Whether a file is there, or soon is."""
    deadline = time.monotonic() + 600
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return path.exists()


def test_each_piece_has_a_process_of_its_own_and_one_that_is_killed_takes_no_other_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with apart(2, None, [], tmp_path) as submit:
        first, killed, second = (
            submit(function, Path(name), name)
            for function, name in ((say_where, "first"), (end_at_once_apart, "killed"), (say_where, "second"))
        )
        assert [first.result(), killed.result(), second.result()] == [0, -signal.SIGKILL, 0]
    (one, folder, threads), other = (Path(name).read_text().split("\n") for name in ("first", "second"))
    assert folder == str(tmp_path)
    assert threads == str(max(1, (os.cpu_count() or 1) // 2))
    assert len({one, other[0], str(os.getpid())}) == 3


def test_an_interrupt_stops_what_runs_and_drops_what_has_not_begun(tmp_path):
    def interrupted_when_the_first_runs():
        with apart(1, None, [], tmp_path) as submit:
            futures.extend(submit(wait_to_be_stopped, tmp_path / name, name) for name in ("a", "b"))
            assert appears(tmp_path / "a")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    futures = []
    with pytest.raises(KeyboardInterrupt, match="--resume goes on"):
        interrupted_when_the_first_runs()
    assert futures[0].result() == INTERRUPTED
    assert futures[1].cancelled()
    assert (tmp_path / "a").read_text() == "stopped"
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(("piece", "how"), [("wait_to_be_stopped", signal.SIGKILL), ("wait_stubbornly", signal.SIGINT)])
def test_nothing_is_left_running_by_a_parent_that_is_killed_or_interrupted_twice(tmp_path, piece, how):
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from pathlib import Path\n"
        "from helpers import pieces\n"
        "from kneessl.workers.apart import apart\n"
        "with apart(1, None, [], Path()) as submit:\n"
        "    submit(getattr(pieces, sys.argv[1]), Path(sys.argv[2]), 'piece').result()\n"
    )
    words = [sys.executable, "-c", code, piece, str(tmp_path / "a")]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as parent:
        assert appears(tmp_path / "a")
        (child,) = psutil.Process(parent.pid).children()
        assert child.cmdline()[-2] == "piece"
        parent.send_signal(how)
        if how == signal.SIGINT:
            assert appears(tmp_path / "asked")
            parent.send_signal(how)
    assert psutil.wait_procs([child], timeout=60)[0]
    assert how == signal.SIGINT or (tmp_path / "a").read_text() == "stopped"
