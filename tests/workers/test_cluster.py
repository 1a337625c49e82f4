"""A real Dask scheduler with two workers, as `dask scheduler` and `dask worker` start them."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from helpers.dicom import write_plane
from helpers.pieces import Scored, leave_a_file, wait_to_be_stopped

from kneessl.errors import UserError
from kneessl.experiments.jobs import done, failures, run_all
from kneessl.phantom.command import phantom
from kneessl.sources.importer import import_exams
from kneessl.workers import cluster
from kneessl.workers.apart import apart
from kneessl.workers.executor import executor

TESTS = Path(__file__).parents[1]


def until(there, seconds: float = 600) -> bool:
    """Whether something is so, or soon is."""
    deadline = time.monotonic() + seconds
    while not there() and time.monotonic() < deadline:
        time.sleep(0.05)
    return there()


class Cluster:
    """Processes of a cluster, which stand in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen] = {}

    def start(self, kind: str, name: str, *words: str) -> str:
        """Start a scheduler or worker, and return its address."""
        path = os.pathsep.join([str(TESTS), *sys.path])
        log = self.folder / f"{name}.log"
        with log.open("w") as file:
            command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *words, "--no-dashboard"]
            self.processes[name] = subprocess.Popen(
                command, cwd=self.folder, stdout=file, stderr=file, env=os.environ | {"PYTHONPATH": path}
            )
        address = re.compile(r"(?:Scheduler at|Start worker at):\s+(\S+)")
        assert until(lambda: address.search(log.read_text())), log.read_text()
        return address.search(log.read_text())[1]

    def worker(self, name: str) -> str:
        """Start one more."""
        words = ("--nthreads", "1", "--no-nanny", "--local-directory", str(self.folder))
        return self.start("worker", name, self.address, *words)

    def begin(self, workers: int) -> "Cluster":
        """Start a scheduler and workers."""
        self.address = self.start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", "0")
        for k in range(workers):
            self.worker(f"worker{k}")
        return self

    def kill(self, *names: str) -> None:
        """As a machine that loses its power."""
        for name in names or tuple(self.processes):
            process = self.processes.pop(name)
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    """A cluster of two workers."""
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    yield started.begin(2)
    started.kill()


def test_trainings_go_on_when_a_worker_is_killed_in_the_middle(dask, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    jobs = [Scored(Path("runs", name)) for name in ("fails", "long", "last")]
    (tmp_path / "runs" / "last").mkdir(parents=True)
    (tmp_path / "runs" / "last" / "result.json").write_text("before")
    began = tmp_path / "runs" / "long" / "began"

    def kill_the_worker_that_trains_long(submit):
        def submitting(function, job, name):
            future = submit(function, job, name)
            if name == "long":
                assert until(began.is_file)
                assert until(lambda: began.read_text() != "")
                killed.append(int(began.read_text()))
                worker = psutil.Process(killed[0]).ppid()
                dask.kill(*(name for name, process in dask.processes.items() if process.pid == worker))
                assert len(dask.processes) == 2
            return future

        return submitting

    killed: list[int] = []
    with apart(1, dask.address, [tmp_path], tmp_path / "runs") as submit:
        run_all(jobs, kill_the_worker_that_trains_long(submit), "trainings")
    assert [done(job) for job in jobs] == [False, True, True]
    assert failures(jobs) == ["fails failed: no luck with fails"]
    assert (tmp_path / "runs" / "last" / "result.json").read_text() == "before", "what is done is not done again"
    by = (tmp_path / "runs" / "long" / "result.json").read_text()
    assert by != str(killed[0]), "another worker did it"
    assert not psutil.pid_exists(killed[0]), "what the killed worker had begun has ended with it"
    assert "Traceback" not in capfd.readouterr().err
    dask.worker("another")


def test_phantom_and_import_give_the_same_files_as_here(dask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        own = {"StudyInstanceUID": f"2.25.{number}", "PatientID": f"P{number}"}
        write_plane(Path("src"), "sagittal", f"2.25.{number}.8", slices=6, side=32, seed=number, **own)
    for name, address in (("here", None), ("there", dask.address)):
        phantom(Path(name, "phantom"), exams=2, planes=("sagittal",), workers=1, cluster=address)
        import_exams(Path("src"), Path(name, "imported"), workers=1, cluster=address)
    here, there = ({p.relative_to(n): p.read_bytes() for p in Path(n).rglob("*.*")} for n in ("here", "there"))
    assert here == there
    assert sum(path.suffix == ".npy" for path in there) == 5


def test_what_fails_on_a_worker_leaves_no_argument_in_its_log(dask):
    with executor(1, dask.address) as pool:
        error = pool.submit(int, "Smith^John", 36 + len("Smith")).exception()
    assert isinstance(error, ValueError)
    logs = "".join(path.read_text() for path in dask.folder.glob("*.log"))
    assert "open_and_call" in logs
    assert "Smith" not in logs


def test_an_interrupt_stops_what_runs_on_workers(dask, tmp_path):
    def interrupted():
        with apart(1, dask.address, [], tmp_path / "out") as submit:
            submit(wait_to_be_stopped, tmp_path / "a", "a")
            assert until((tmp_path / "a").is_file)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)

    with pytest.raises(KeyboardInterrupt, match="--resume goes on"):
        interrupted()
    assert until(lambda: (tmp_path / "a").read_text() == "stopped")
    with executor(1, dask.address, writes=tmp_path / "out") as pool:
        assert sorted(pool.map(abs, range(4))) == [0, 1, 2, 3], "the workers are free again"


@pytest.fixture
def doomed(tmp_path_factory):
    """A cluster of one worker, for one test to lose."""
    started = Cluster(tmp_path_factory.mktemp("doomed"))
    yield started.begin(1)
    started.kill()


def test_a_scheduler_that_goes_away_is_told_in_a_sentence(doomed, tmp_path):
    def without_it():
        with apart(1, doomed.address, [], tmp_path / "out") as submit:
            future = submit(wait_to_be_stopped, tmp_path / "a", "a")
            assert until((tmp_path / "a").is_file)
            doomed.kill("scheduler")
            future.result()

    with pytest.raises(UserError, match=f"the scheduler at {doomed.address} has gone"):
        without_it()
    assert until(lambda: (tmp_path / "a").read_text() == "stopped")


def test_what_workers_lack_is_told_before_any_work_begins(dask, tmp_path, monkeypatch):
    def refused(message: str, **asked: Path) -> None:
        began = []
        with pytest.raises(UserError, match=message), executor(1, dask.address, **asked):
            began.append(1)
        assert not began

    worker = r"the worker at tcp://[\d.:]+"
    refused(f"{worker} has no {tmp_path / 'knees'}; all workers must share", reads=[tmp_path / "knees"])
    monkeypatch.chdir(tmp_path)
    with executor(1, dask.address, reads=[Path()], writes=Path("out")) as pool:
        assert pool.submit(leave_a_file, tmp_path, 7).result() == 7
    assert [path.name for path in tmp_path.iterdir()] == ["7"], "nothing else is left there"


def test_an_address_of_no_scheduler_is_told_in_a_sentence(dask, monkeypatch):
    def refused(address: str, message: str) -> None:
        with pytest.raises(UserError, match=message), executor(2, address):
            pass

    living = next(name for name in dask.processes if name.startswith("worker"))
    worker = re.search(r"Start worker at:\s+(\S+)", (dask.folder / f"{living}.log").read_text())[1]
    refused(worker, f"at {worker} is a Dask worker; give the address of its scheduler")
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    for address in ("nonsense", "", "tcp://127.0.0.1", "tcp://127.0.0.1:port", "http://127.0.0.1:80"):
        refused(address, f"cluster is '{address}', which is no address such as")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        refused(f"tcp://127.0.0.1:{port}", "no Dask scheduler answers at")
    refused(f"127.0.0.1:{port}", "no Dask scheduler answers at")
    refused("no.such.host.invalid:8786", "no Dask scheduler answers at no.such.host")
    monkeypatch.undo()  # a scheduler that is there has its time
    monkeypatch.setattr(cluster, "version_here", {"python": "3.11", "distributed": "1999.1.0", "kneessl": "0"}.get)
    refused(dask.address, r"the scheduler at .* has distributed 20[\d.]+, and this process has 1999.1.0; start")


@dataclass
class FakeClient:
    """A cluster of one worker, which answers as told."""

    packages: dict[str, str | None]
    lacks: Callable[[list[str]], str | None]

    def scheduler_info(self, n_workers):
        return {"workers": {}}

    def submit(self, function, *args, pure):
        return SimpleNamespace(result=lambda: None)

    def get_versions(self, packages):
        return {"workers": {"tcp://10.0.0.2:9": {"packages": self.packages}}}

    def run(self, function, paths):
        return {"tcp://10.0.0.2:9": self.lacks(paths)}


HERE = {"python": "3.11", "distributed": "2026.8.0", "kneessl": "0.1.0"}


@pytest.mark.parametrize(
    ("packages", "lacks", "message"),
    [
        (
            HERE | {"python": "3.11.2.final.0"},
            lambda paths: paths[-1],
            "10.0.0.2:9 does not see what is written in {out}",
        ),
        (HERE | {"python": "3.12.1"}, None, r"the worker at .* has python 3.12, and this process has 3.11; start"),
        (HERE | {"kneessl": None}, None, r"the worker at .* has kneessl missing, and this process has 0.1.0; start"),
    ],
)
def test_workers_that_do_not_fit_are_told_in_a_sentence(tmp_path, capsys, packages, lacks, message):
    client = FakeClient(packages, lacks)
    with pytest.raises(UserError, match=message.format(out=tmp_path)):
        cluster.require_fit(client, "tcp://10.0.0.1:8786", HERE, [], tmp_path / "new" / "out")
    assert capsys.readouterr().out == "waiting for a worker of the scheduler at tcp://10.0.0.1:8786\n"
    assert not list(tmp_path.iterdir())


def test_without_distributed_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "kneessl.workers.cluster")
    with (
        pytest.raises(UserError, match=r'run `pip install "kneessl\[cluster\]"` first'),
        executor(1, "tcp://10.0.0.1:1"),
    ):
        pass
