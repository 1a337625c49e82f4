import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from kneessl.exams.folder import ExamFolder, write_series
from kneessl.finetuning.mrnet import WholeSeries
from kneessl.views import store
from kneessl.views.clips import Clips, EpochSampler, ResidentClips, clip_loader
from kneessl.views.preprocess import Preprocessing
from kneessl.views.store import ResidentSlices, fits_in_memory, hold

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> ExamFolder:
    root = tmp_path_factory.mktemp("exams")
    rng = np.random.default_rng(0)
    for i, slices in enumerate((20, 1, 7, 33, 12)):
        volume = rng.integers(0, 256, (slices, 256, 256), dtype=np.uint8)
        write_series(root, "train", "sagittal", f"{i:04d}", volume)
    np.save(
        root / "train/sagittal/0005.npy", np.asfortranarray(volume[::-1])
    )  # the last way an array may lie in a file
    return ExamFolder(root)


def make_clips(folder, depth=1.0, count=8, seed=3) -> Clips:
    exams = folder.exams("train", "sagittal")
    return Clips(folder, "train", "sagittal", exams, count, seed, Preprocessing(depth=depth))


def on_cpu(monkeypatch, free: int) -> None:
    """A CPU in place of the GPU, with so many bytes free: the lines that run are the same."""
    monkeypatch.setattr(store, "gpu_memory", lambda: (CPU, free))


def batches(loader, epochs=2) -> list[list[torch.Tensor]]:
    found = []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        found += list(loader)
    return found


def assert_same(a, b) -> None:
    assert len(a) == len(b)
    for first, second in zip(a, b, strict=True):
        for x, y in zip(first, second, strict=True):
            assert x.dtype == y.dtype
            assert torch.equal(x, y)


@pytest.mark.parametrize("depth", [1.0, 0.4])
@pytest.mark.parametrize("drop_last", [True, False])
def test_held_series_give_the_batches_that_files_give(folder, monkeypatch, depth, drop_last):
    """Pixels, exams and places of all batches of two epochs, with an exam that is drawn more than once."""
    clips, indices = make_clips(folder, depth), [0, 1, 2, 3, 3, 4, 5, 0]
    from_files = clip_loader(clips, indices, 3, drop_last)
    on_cpu(monkeypatch, 10**9)
    held = clip_loader(clips, indices, 3, drop_last)
    assert isinstance(held.dataset, ResidentClips)
    assert isinstance(from_files.dataset, Clips)
    assert_same(batches(held), batches(from_files))


def test_whole_series_too(folder, monkeypatch):
    clips = WholeSeries(folder, "train", "sagittal", folder.exams("train", "sagittal"), 0, Preprocessing(depth=0.5))
    from_files = clip_loader(clips, range(6), 1)
    on_cpu(monkeypatch, 10**9)
    assert_same(batches(clip_loader(clips, range(6), 1)), batches(from_files))


def test_some_of_the_exams_are_numbered_among_themselves(folder):
    held = hold(folder, "train", "sagittal", ["0003", "0001"], CPU)
    assert held.pixels.shape == (34, 256, 256)
    found = held.gather([1, 0], [np.array([0, 0]), np.array([32, 5])])
    last = torch.from_numpy(np.array(folder.series("train", "sagittal", "0003")))[[32, 5]]
    only = torch.from_numpy(np.array(folder.series("train", "sagittal", "0001")))[[0, 0]]
    assert torch.equal(found, torch.stack([only, last]))


def test_a_batch_is_a_copy(folder):
    held = ResidentSlices(torch.zeros((2, 256, 256), dtype=torch.uint8), [2])
    held.gather([0], [np.array([0, 1])]).fill_(1)
    assert not held.pixels.any()


@pytest.mark.parametrize(("needed", "free", "room"), [(5, 10, True), (6, 10, False), (5, 11, True), (1, 0, False)])
def test_series_may_take_half_of_what_is_free(needed, free, room):
    assert fits_in_memory(needed, free) == room


def test_the_bytes_that_decide_are_those_of_the_files(folder, monkeypatch, capsys):
    clips = make_clips(folder)
    exact = 85 * 256 * 256 + 6 * 128  # slices, and a header each
    on_cpu(monkeypatch, 2 * exact)
    assert isinstance(clip_loader(clips, range(6), 2).dataset, ResidentClips)
    assert "note" not in capsys.readouterr().err
    on_cpu(monkeypatch, 2 * exact - 2)
    assert clip_loader(clips, range(6), 2).dataset is clips
    assert capsys.readouterr().err.startswith("note: the sagittal series take 0.0 GB, more than half of the 0.0 GB")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_without_a_gpu_nothing_is_held(folder, capsys):
    clips = make_clips(folder)
    assert clip_loader(clips, range(6), 2).dataset is clips
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_host_waits_for_no_batch(folder):
    clips = make_clips(folder)
    from_files = batches(DataLoader(clips, 3, sampler=EpochSampler(range(6), clips.seed)))
    held = clip_loader(clips, range(6), 3)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = batches(held)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(x.is_cuda for batch in found for x in batch)
    assert_same([[x.cpu() for x in batch] for batch in found], from_files)
