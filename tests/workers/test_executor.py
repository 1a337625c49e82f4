import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from helpers.pieces import about_this_process, call, end_at_once, fail, leave_a_file

from kneessl.errors import UserError
from kneessl.workers.executor import executor, in_order


def test_one_worker_is_this_process_and_does_each_piece_when_its_result_is_asked_for(tmp_path):
    with executor(1) as pool:
        leave = partial(leave_a_file, tmp_path)
        for k, results in enumerate((pool.map(leave, [0, 8]), in_order(pool, leave, iter([1, 9]), 8))):
            assert len(list(tmp_path.iterdir())) == k
            assert next(results) == k
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
        assert pool.submit(int, "7").result() == 7
        assert isinstance(pool.submit(int, "x").exception(), ValueError)


def test_results_are_in_order_and_no_more_items_are_taken_than_are_wanted_ahead():
    taken: list[int] = []

    def items():
        for item in range(50):
            taken.append(item)
            yield item

    def piece(item: int) -> int:
        time.sleep(0.003 * (item % 3))
        return item * item

    with ThreadPoolExecutor(3) as pool:
        for k, result in enumerate(in_order(pool, piece, items(), 7)):
            assert result == k * k
            assert len(taken) <= k + 7
    assert taken == list(range(50))


def test_workers_are_processes_of_one_thread_that_leave_an_interrupt_to_this_one(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with executor(2) as pool:
        about = list(in_order(pool, about_this_process, range(4), 4))
    assert os.getpid() not in {pid for pid, *_ in about}
    assert {(one_thread, omp, ignored) for _, one_thread, omp, ignored in about} == {(True, "1", True)}


def test_what_has_not_begun_is_dropped_when_a_piece_fails(tmp_path):
    pieces = [partial(fail, 0), *(partial(leave_a_file, tmp_path, k) for k in range(200))]
    with pytest.raises(ValueError, match="piece 0"), executor(2) as pool:
        list(in_order(pool, call, pieces, 201))
    assert len(list(tmp_path.iterdir())) < 100


def test_a_worker_that_the_system_ends_is_told_in_a_sentence():
    with pytest.raises(UserError, match="ended by the system, out of memory perhaps"), executor(2) as pool:
        list(pool.map(end_at_once, range(2)))


def test_workers_end_with_a_parent_that_is_killed():
    code = (
        "import sys, time; sys.path.insert(0, 'tests')\n"
        "from helpers.pieces import sleep\n"
        "from kneessl.workers.executor import executor\n"
        "with executor(2) as pool:\n"
        "    list(pool.map(sleep, [0, 0]))\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
    )
    words = [sys.executable, "-c", code]
    parent = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while alive(parent.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(parent.pid)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
