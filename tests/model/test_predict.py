from pathlib import Path

import numpy as np
import pytest
import torch

from kneessl.classifier.classifier import build_classifier
from kneessl.exams.folder import ExamFolder
from kneessl.model.model import Model, PlaneModel
from kneessl.model.predict import SHIFTS, plane_logits, predict_task, series_logits, shifted, whole_clip
from kneessl.views.preprocess import Preprocessing


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, 0), (-1, 3), (0, -2), (5, 5), (-5, -5), (9, 0)])
def test_slices_move_by_whole_pixels_and_leave_black_behind(down, right):
    slices = np.arange(1, 2 * 5 * 6 + 1, dtype=np.uint8).reshape(2, 5, 6)
    out = shifted(slices, down, right)
    for row in range(5):
        for column in range(6):
            inside = 0 <= row - down < 5 and 0 <= column - right < 6
            expected = slices[:, row - down, column - right] if inside else 0
            assert (out[:, row, column] == expected).all()


def a_model(head="mean", tta=False, depth=0.5):
    torch.manual_seed(0)
    classifier = build_classifier("resnet18", head, 2, {}).eval()
    return PlaneModel(classifier, ("a", "b"), "sagittal", Preprocessing(32, 0.5, depth), tta)


def a_series(slices=9):
    return np.random.default_rng(0).integers(0, 256, (slices, 256, 256), dtype=np.uint8)


def test_the_clip_moves_along_the_series_as_far_as_it_goes():
    series, model = a_series(9), a_model()
    for offset, kept in ((0, [2, 3, 4, 5]), (1, [3, 4, 5, 6]), (-1, [1, 2, 3, 4])):
        clip, where = whole_clip(model, series, (0, 0, offset))
        assert torch.equal(clip, model.preprocessing(torch.from_numpy(series[kept])[None]))
        torch.testing.assert_close(where, torch.tensor([kept]).float() / 8)
    for offset in (-1, 1):
        whole = whole_clip(a_model(depth=1.0), series, (0, 0, offset))
        assert torch.equal(whole[0], whole_clip(a_model(depth=1.0), series)[0])


def test_test_time_augmentation_is_the_mean_over_its_shifts_and_a_shift_shows_what_lay_beside():
    series, plain, augmented = a_series(), a_model(), a_model(tta=True)
    each = []
    for down, right, offset in SHIFTS:
        step = round(0.04 * 128)
        clip, where = whole_clip(plain, np.roll(series, (step * down, step * right), (1, 2)), (0, 0, offset))
        with torch.no_grad():
            each.append(plain.classifier(clip, where)[0].double().numpy())
    np.testing.assert_allclose(series_logits(augmented, series), np.mean(each, axis=0), atol=1e-6)
    np.testing.assert_allclose(series_logits(plain, series), each[0], atol=1e-6)
    assert len({tuple(row) for row in np.round(each, 9)}) == len(SHIFTS)


def test_answers_of_a_model_with_nothing_locked_have_no_intervals():
    plane = a_model()
    model = Model(Path("nowhere"), {"sagittal": plane}, plane.tasks, None, "")
    found = predict_task(model, "b", {"sagittal": np.array([[0.0, 1.0], [np.nan, np.nan]])})
    assert (found.states, found.intervals, found.planes) == ([None, None], [None, None], ["sagittal", ""])
    assert found.probabilities[0] == pytest.approx(1 / (1 + np.exp(-1)))


def test_an_exam_without_the_plane_has_no_logits(knees):
    logits = plane_logits(a_model(), ExamFolder(knees), "valid", ["0012", "nowhere", "0013"], "x")
    assert np.isnan(logits[1]).all()
    assert np.isfinite(logits[[0, 2]]).all()
