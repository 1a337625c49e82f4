import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from kneessl.report import confusion
from kneessl.report.confusion import INK, LIGHT_TEXT_FROM, SHADES, row_shares, write_confusion_png

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
COUNTS = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
TITLE = "SimCLR on 12,406 images of CIFAR10-LT, ratio 0.01: accuracy 62.4 %, by a linear classifier on frozen features"


@pytest.fixture
def matrix():
    """1,000 test images of each class."""
    rng = np.random.default_rng(0)
    return [rng.multinomial(1000, rng.dirichlet(np.full(10, 0.5) + 4 * np.eye(10)[k])).tolist() for k in range(10)]


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws, and returns the figure and the file."""
    figures = []

    class Watched(FigureCanvasAgg):
        def print_png(self, *args, **kwargs):
            figures.append(self.figure)
            super().print_png(*args, **kwargs)

    monkeypatch.setattr(confusion, "FigureCanvasAgg", Watched)

    def draw(matrix, classes=CLASSES, counts=COUNTS, title=TITLE):
        path = tmp_path / "confusion.png"
        write_confusion_png(path, matrix, classes, counts, title)
        return figures[-1], path

    return draw


def cells(figure):
    """Text of each cell by row and column."""
    return {(text.get_position()[1], text.get_position()[0]): text for text in figure.axes[0].texts}


def contrast(one, other):
    """WCAG's contrast of two colours."""

    def luminance(colour):
        values = np.array(to_rgb(colour))
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_shares_of_a_row_sum_to_one(matrix):
    shares = row_shares(np.array(matrix))
    np.testing.assert_allclose(shares.sum(1), 1)
    assert shares[3, 7] == matrix[3][7] / sum(matrix[3])


def test_a_row_without_test_images_has_no_shares():
    shares = row_shares(np.array([[3, 1], [0, 0]]))
    assert shares[0].tolist() == [0.75, 0.25]
    assert np.isnan(shares[1]).all()


def test_the_file_is_a_png_that_is_large_enough_to_read(drawn, matrix):
    _, path = drawn(matrix)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert 900 < image.width < 1500
        assert 900 < image.height < 1500
        image.load()
    assert path.stat().st_size < 300_000
    assert [file.name for file in path.parent.iterdir()] == ["confusion.png"]


def test_the_same_input_gives_the_same_bytes(drawn, matrix):
    first = drawn(matrix)[1].read_bytes()
    assert drawn(matrix)[1].read_bytes() == first
    matrix[2] = matrix[2][::-1]
    assert drawn(matrix)[1].read_bytes() != first


def test_every_cell_says_its_percent_of_the_true_class(drawn):
    figure, _ = drawn([[8, 2, 0], [1, 0, 0], [1, 1, 197]], ["a", "b", "c"], [50, 5, 1])
    texts = {place: text.get_text() for place, text in cells(figure).items()}
    assert texts == {
        (0, 0): "80%",
        (0, 1): "20%",  # no test image of a was taken for c
        (1, 0): "100%",
        (1, 1): "0%",  # the diagonal always has its accuracy
        (2, 0): "1%",
        (2, 1): "1%",
        (2, 2): "99%",
    }


def test_cells_are_shaded_by_the_share_of_the_row(drawn):
    figure, _ = drawn([[8, 2], [0, 1000]], ["a", "b"], [50, 5])
    (picture,) = figure.axes[0].images
    np.testing.assert_allclose(picture.get_array(), [[0.8, 0.2], [0, 1]])
    assert (picture.norm.vmin, picture.norm.vmax) == (0, 1)  # the same shade means the same in every figure


def test_the_diagonal_alone_is_framed(drawn, matrix):
    figure, _ = drawn(matrix)
    assert [patch.get_xy() for patch in figure.axes[0].patches] == [(k - 0.5, k - 0.5) for k in range(10)]


def test_axes_name_true_classes_with_their_training_images_and_predicted_ones(drawn, matrix):
    figure, _ = drawn(matrix)
    axes = figure.axes[0]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows[:2] == ["airplane (5,000)", "automobile (2,997)"]
    assert rows[9] == "truck (50)"
    assert [label.get_text() for label in axes.get_xticklabels()] == CLASSES
    assert axes.get_ylabel() == "True class (12,406 training images)"
    assert axes.get_xlabel() == "Predicted class (% of the row)"
    assert figure.get_suptitle().replace("\n", " ") == TITLE


def test_a_class_without_test_images_is_said_and_not_divided_by(drawn, matrix):
    matrix[5] = [0] * 10
    figure, path = drawn(matrix)
    assert [text.get_text() for (row, _), text in cells(figure).items() if row == 5] == ["no test images"]
    assert len(figure.axes[0].patches) == 9
    assert path.stat().st_size > 10_000


@pytest.mark.parametrize("count", [2, 3, 10])
def test_nothing_drawn_leaves_the_figure_or_its_cell(drawn, count):
    names = ["a very long name of a class", *CLASSES[1:]][:count]
    figure, _ = drawn(np.full((count, count), 100).tolist(), names, [50_000] * count)
    axes = figure.axes[0]
    page = figure.bbox
    labels = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label, figure._suptitle]
    for label in labels:
        box = label.get_window_extent()
        assert page.x0 <= box.x0 < box.x1 <= page.x1, label.get_text()
        assert page.y0 <= box.y0 < box.y1 <= page.y1, label.get_text()
    cell = axes.get_window_extent().width / count
    assert all(text.get_window_extent().width < 0.9 * cell for text in axes.texts)
    top = max(label.get_window_extent().y1 for label in axes.get_yticklabels())
    assert figure._suptitle.get_window_extent().y0 > top


def test_percents_can_be_read_on_every_shade():
    for share in np.linspace(0, 1, 201):
        ink = "white" if share >= LIGHT_TEXT_FROM else INK
        assert contrast(ink, SHADES(share)) > 3.9


def test_shades_darken_steadily_so_that_a_grey_print_keeps_their_order():
    on_white = [contrast("white", SHADES(share)) for share in np.linspace(0, 1, 101)]
    assert np.all(np.diff(on_white) > 0)


def test_names_are_drawn_as_they_are_written(drawn):
    figure, _ = drawn([[1, 0], [0, 1]], ["$x^$", r"\frac{"], [1, 1], "from $1 to $2")
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["$x^$", r"\frac{"]
    assert not any(label.get_parse_math() for label in (*figure.axes[0].get_yticklabels(), figure._suptitle))


def test_a_failure_leaves_the_old_file(drawn, matrix):
    path = drawn(matrix)[1]
    before = path.read_bytes()
    with pytest.raises(ValueError):
        drawn(matrix, counts=COUNTS[:9])
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["confusion.png"]
