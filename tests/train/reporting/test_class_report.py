"""Per-class tables, confusion matrices and calibration of a run's test split."""

import csv

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sk

from mmjax.data.dataset import Task
from mmjax.metrics import PerExample
from mmjax.train.reporting.class_figures import draw_calibration, draw_confusions
from mmjax.train.reporting.class_report import select_class_statistics, write_class_reports

CLASSES = ("sad", "glad", "a$b$/c\x1b[31m")


def draw_seed(seed):
    """Draws the statistics of one seed: of the same examples, a quarter of them unlabeled."""
    target = np.random.default_rng(0).integers(0, 3, 80)
    labeled = np.arange(80) % 4 > 0
    rng = np.random.default_rng(seed)
    predicted = np.where(rng.random(80) < 0.7, target, rng.integers(0, 3, 80))
    target = np.where(labeled, target, 99)
    choice = {
        "target": PerExample(target, labeled),
        "predicted": PerExample(predicted, labeled),
        "confidence": PerExample(rng.uniform(0.4, 1, 80), labeled),
    }
    hits = np.array([[3, 0, 2], [1, 0, 1], [0, 2, 4]])
    return {
        "mood": choice | {"loss": np.float64(1)},
        "../rank": {name: choice[name] for name in ("target", "predicted")},
        "tags": dict(zip(("tp", "fp", "fn"), hits, strict=True)),
        "size": {"prediction": PerExample(np.zeros(80), labeled), "target": PerExample(target)},
        "unlabeled": {name: PerExample(x.values, np.zeros(80, bool)) for name, x in choice.items()},
    }


def read_table(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.reader(file))


def test_files_hold_scikit_learns_numbers_of_all_seeds_together(tmp_path):
    seeds = [draw_seed(seed) for seed in (1, 2)]
    tasks = {name: Task("classification", CLASSES) for name in seeds[0]}
    write_class_reports(tmp_path / "test", tasks, [select_class_statistics(s) for s in seeds])
    assert {path.name for path in (tmp_path / "test").iterdir()} == {
        "mood-classes.csv",
        "mood-confusion.png",
        "mood-calibration.png",
        "..%2Frank-classes.csv",
        "..%2Frank-confusion.png",
        "tags-classes.csv",
    }
    y, p = (
        np.concatenate([seed["mood"][name].select() for seed in seeds])
        for name in ("target", "predicted")
    )
    header, *rows = read_table(tmp_path / "test" / "mood-classes.csv")
    assert header == ["class", "precision", "recall", "f1", "examples"]
    *scores, support = sk.precision_recall_fscore_support(y, p, zero_division=0)
    assert [row[0] for row in rows] == ["sad", "glad", "a$b$/c\\x1b[31m"]
    np.testing.assert_allclose(
        [[float(x) for x in row[1:4]] for row in rows], np.transpose(scores), atol=5e-7
    )
    assert [int(row[4]) for row in rows] == (support // 2).tolist()
    _, *rows = read_table(tmp_path / "test" / "tags-classes.csv")
    expected = [["0.750000", "1.000000", "0.857143", "3"], ["0.000000"] * 3 + ["2"]]
    assert [row[1:] for row in rows[:2]] == expected
    with Image.open(tmp_path / "test" / "mood-confusion.png") as image:
        assert min(image.size) > 500


def test_cells_are_shares_and_counts_of_the_true_class():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 4, (2, 50))
    counts = sk.confusion_matrix(y, p)
    figure = draw_confusions("mood", counts, list("abcd"), seeds=1)
    shares = sk.confusion_matrix(y, p, normalize="true")
    axis = figure.axes[0]
    np.testing.assert_allclose(axis.images[0].get_array(), shares)
    written = [text.get_text().split("\n") for text in axis.texts]
    assert [int(count) for _, count in written] == counts.ravel().tolist()
    assert [share for share, _ in written] == [f"{100 * x:.0f}%" for x in shares.ravel()]
    assert axis.get_yticklabels()[0].get_text() == f"a ({(y == 0).sum()})"


@pytest.mark.parametrize("classes", [60, 1000])
def test_of_many_classes_the_worst_confusions_are_listed(classes):
    counts = 20 * np.eye(classes, dtype=int)
    counts[7, 3], counts[5, 50] = 30, 5
    names = [f"class {i} {'x' * 100}" for i in range(classes)]
    figure = draw_confusions("mood", counts, names)
    lines = figure._supxlabel.get_text().split("\n")
    assert len(lines) == 3 and lines[1].endswith(": 30 (60%)") and lines[2].endswith(": 5 (20%)")
    image = figure.axes[0].images[0]
    assert image.get_array().shape == (min(classes, 200),) * 2
    block = -(-classes // 200)
    assert image.get_array()[7 // block, 3 // block] == pytest.approx(0.6)
    assert image.get_array()[5 // block, 50 // block] == pytest.approx(0.2)
    assert len(figure.axes[0].get_yticklabels()) == min(classes, 60 if classes <= 60 else 25)


def test_calibration_is_accuracy_over_confidence():
    confidence = np.repeat([0.5, 0.9], [4, 10])
    correct = np.arange(14) % 2 == 0
    figure = draw_calibration("mood", confidence, correct)
    line = figure.axes[0].lines[1]
    np.testing.assert_allclose(line.get_xdata(), [0.5, 0.9])
    np.testing.assert_allclose(line.get_ydata(), [0.5, 0.5])
    assert "error 0.286" in figure._suptitle.get_text()  # 0.4 · 10 / 14
    assert [bar.get_height() for bar in figure.axes[1].patches] == pytest.approx([4 / 14, 10 / 14])
