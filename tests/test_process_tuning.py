import gc
import platform
import subprocess
import sys

import pytest

from kneessl import process_tuning


def in_a_process_of_its_own(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("command", "slow"),
    [
        ("pretrain", {"torchmetrics", "matplotlib", "scipy.stats", "sklearn", "pydicom", "monai"}),
        ("predict", {"lightning", "torch._dynamo", "scipy.stats", "sklearn", "monai"}),
        ("serve", {"torch"}),
        ("check", {"torch"}),
        ("import", {"torch", "matplotlib"}),
    ],
)
def test_a_command_imports_nothing_slow_that_it_starts_without(command, slow):
    code = f"import sys; from kneessl import cli; cli.make_parser({command!r}); print(*sys.modules)"
    assert not slow & set(in_a_process_of_its_own(code).split())


def test_lightning_does_without_torchmetrics_and_others_have_it_afterwards():
    code = """
from kneessl.process_tuning import fast_imports
with fast_imports():
    import lightning
import torch, torchmetrics
assert issubclass(torchmetrics.Metric, torch.nn.Module)
print(lightning.Trainer.__name__)
"""
    assert in_a_process_of_its_own(code).split() == ["Trainer"]


def test_torchmetrics_that_is_there_already_stays():
    code = """
import torchmetrics
from kneessl.process_tuning import torchmetrics_replaced
with torchmetrics_replaced():
    import lightning.pytorch.core.module as module
assert module.Metric is torchmetrics.Metric
print("same")
"""
    assert in_a_process_of_its_own(code).split() == ["same"]


def test_garbage_is_collected_again_after_an_import_that_fails():
    def fail():
        assert not gc.isenabled()
        raise ImportError

    with pytest.raises(ImportError), process_tuning.no_garbage_collection():
        fail()
    assert gc.isenabled()


def test_the_stand_in_goes_after_an_import_that_fails(monkeypatch):
    monkeypatch.delitem(sys.modules, "torchmetrics", raising=False)

    def fail():
        assert sys.modules["torchmetrics"].Metric
        raise ImportError

    with pytest.raises(ImportError), process_tuning.torchmetrics_replaced():
        fail()
    assert "torchmetrics" not in sys.modules


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_freed_memory_is_there_again_without_page_faults():
    code = """
import resource, sys, torch
from kneessl.process_tuning import keep_freed_memory
if len(sys.argv) > 1:
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(2**24).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print([faults() for _ in range(14)][-1])  # the first ones make the room
"""
    as_it_is, kept = (
        int(subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True).stdout)
        for words in ([], ["keep"])
    )
    assert kept < 100 < as_it_is


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(process_tuning.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(process_tuning.ctypes, "CDLL", None)
    process_tuning.keep_freed_memory()


@pytest.mark.parametrize(("asked", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_has_set_otherwise(monkeypatch, asked, policy):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if asked:
        monkeypatch.setenv("OMP_WAIT_POLICY", asked)
    code = """
import os, sys
from kneessl.__main__ import main
assert "torch" not in sys.modules, "OpenMP reads it when PyTorch is imported"
sys.argv = ["kneessl", "--help"]
try:
    main()
finally:
    print(os.environ["OMP_WAIT_POLICY"])
"""
    assert in_a_process_of_its_own(code).split()[-1] == policy
