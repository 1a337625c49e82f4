import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from kneessl.exams.folder import ExamFolder, write_series
from kneessl.views.clips import Clips, EpochSampler, places, sample_slices
from kneessl.views.preprocess import Preprocessing


@given(total=st.integers(1, 80), count=st.integers(1, 64), seed=st.integers(0, 1000))
def test_slices_come_without_replacement_and_in_order(total, count, seed):
    chosen = sample_slices(total, count, np.random.default_rng(seed))
    assert len(chosen) == count
    assert (np.diff(chosen) >= 0).all()
    assert chosen.min() >= 0
    assert chosen.max() < total
    times = np.bincount(chosen, minlength=total)
    assert times.max() - times.min() <= 1, "nothing twice before everything once"


def test_every_slice_is_equally_likely():
    rng = np.random.default_rng(0)
    counts = sum(np.bincount(sample_slices(30, 16, rng), minlength=30) for _ in range(3000))
    assert abs(counts / 3000 - 16 / 30).max() < 0.05


WHOLE, MIDDLE = Preprocessing(), Preprocessing(depth=0.5)


def make_clips(root, seed=0, preprocessing=WHOLE):
    rng = np.random.default_rng(1)
    for i in range(4):
        write_series(root, "train", "sagittal", f"{i:04d}", rng.integers(0, 255, (20 + i, 256, 256), dtype=np.uint8))
    folder = ExamFolder(root)
    return Clips(folder, "train", "sagittal", folder.exams("train", "sagittal"), 16, seed, preprocessing), folder


def test_a_clip_depends_on_seed_epoch_and_exam_alone(tmp_path):
    clips, folder = make_clips(tmp_path)
    first, i, where = clips[(3, 2, 0)]
    assert first.shape == (16, 256, 256)
    assert first.dtype == torch.uint8
    assert i == 2
    assert torch.equal(where, where.sort().values)
    clips[(0, 1, 0)]
    assert torch.equal(clips[(3, 2, 0)][0], first)
    assert not torch.equal(clips[(4, 2, 0)][0], first)
    series = folder.series("train", "sagittal", "0002")
    assert all(any((slice_ == other).all() for other in series) for slice_ in first.numpy())
    other, _ = make_clips(tmp_path, seed=1)
    assert not torch.equal(other[(3, 2, 0)][0], first)


def test_the_sampler_visits_each_exam_once_in_an_order_of_its_own():
    sampler = EpochSampler(range(50), seed=0)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(i for _, i, _ in first) == sorted(i for _, i, _ in second) == list(range(50))
    assert {e for e, _, _ in second} == {1}
    assert [i for _, i, _ in first] != [i for _, i, _ in second]
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_an_exam_named_twice_gives_two_clips(tmp_path):
    clips, _ = make_clips(tmp_path)
    drawn = sorted(EpochSampler([0, 0, 0, 1], seed=0))
    assert drawn == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0)]
    assert not torch.equal(clips[drawn[0]][0], clips[drawn[1]][0])


def test_only_the_kept_slices_are_drawn_and_all_of_them_are(tmp_path):
    clips, folder = make_clips(tmp_path, preprocessing=MIDDLE)
    series = np.array(folder.series("train", "sagittal", "0002"))  # 22 slices, of which 5 to 15 are kept
    seen = set()
    for epoch in range(20):
        clip, _, where = clips[(epoch, 2, 0)]
        assert len(clip) == 16
        chosen = [int(np.flatnonzero((series == s).all((1, 2)))[0]) for s in clip.numpy()]
        torch.testing.assert_close(where, torch.tensor(chosen) / 21)
        seen |= set(chosen)
    assert seen == set(range(5, 16))


def test_places_go_from_0_to_1_and_an_only_slice_is_in_the_middle():
    assert places(np.array([0, 3, 6]), 7).tolist() == [0, 0.5, 1]
    assert places(np.array([0, 0]), 1).tolist() == [0.5, 0.5]
