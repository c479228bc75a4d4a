"""The tutorials build their data from small files of the same columns, and train."""

import ast
import dataclasses
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

import mmjax
from mmjax.study.arms import make_study_arms

FOLDER = Path(__file__).parents[1] / "experiments"
NAMES = ("tutorial_clothing_reviews", "tutorial_japanese_vowels")


@pytest.fixture
def load(monkeypatch):
    """Returns a function that runs a file of the experiments and returns what it defines."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return lambda name: runpy.run_path(str(FOLDER / f"{name}.py"))


@pytest.fixture
def reviews(tmp_path, monkeypatch):
    """Writes reviews with the columns of the package's table, and gaps where it has them."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rng, n = np.random.default_rng(0), 200
    words = np.array(["soft", "dress", "tight", "lovely", "itchy", "blue"])
    texts = [" ".join(rng.choice(words, 5)) + f" {i}" for i in range(n)]
    columns = {
        "Clothing ID": rng.integers(0, 9, n),
        "Age": rng.integers(18, 90, n),
        "Title": [None if i % 6 == 0 else text.split()[0] for i, text in enumerate(texts)],
        "Review Text": [None if i % 25 == 1 else text for i, text in enumerate(texts)],
        "Rating": 1 + np.arange(n) % 5,
        "Recommended IND": (np.arange(n) % 5 > 1).astype(int),
        "Positive Feedback Count": rng.poisson(2, n),
        "Department Name": [
            None
            if i == 7
            else ("Bottoms", "Dresses", "Intimate", "Jackets", "Tops", "Trend")[i % 6]
            for i in range(n)
        ],
    }
    path = tmp_path / "WomensClothingE-CommerceReviews.parquet.brotli"
    parquet.write_table(pyarrow.table(columns), path)
    monkeypatch.setenv("CLOTHING_REVIEWS", str(tmp_path))
    return columns


@pytest.fixture
def vowels(tmp_path, monkeypatch):
    """Writes series of 3 to 9 steps in the format of the package's files."""
    rng = np.random.default_rng(0)
    series = {
        part: [rng.normal(size=(3 + i % 7, 12)) for i in range(45)] for part in ("TRAIN", "TEST")
    }
    for part, rows in series.items():
        lines = ["# made for a test", "@dimensions 12", "@data"]
        for i, x in enumerate(rows):
            features = [",".join(f"{value:.6f}" for value in feature) for feature in x.T]
            lines.append(":".join([*features, str(1 + i % 9)]))
        (tmp_path / f"JapaneseVowels_{part}.ts").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("JAPANESE_VOWELS", str(tmp_path))
    return series


def test_reviews_are_read_with_their_gaps(load, reviews):
    data = load("tutorial_clothing_reviews")["experiment"]().data
    assert {s: len(x) for s, x in data.splits.items()} == {
        "train": 160, "validation": 20, "test": 20,
    }  # fmt: skip
    batches = [source.take(np.arange(len(source))) for source in data.splits.values()]
    for column, name in (("Title", "title"), ("Review Text", "review")):
        present = sum(int(batch.present[name].sum()) for batch in batches)
        assert present == sum(text is not None for text in reviews[column])
    assert data.tasks["rating"].kind == "ordinal" and len(data.tasks["department"].classes) == 6
    assert sum(int(batch.labeled["department"].sum()) for batch in batches) == 199
    ratings = np.concatenate([batch.targets["rating"] for batch in batches])
    np.testing.assert_array_equal(np.bincount(ratings), [40] * 5)


def test_vowels_keep_their_lengths_and_values(load, vowels):
    data = load("tutorial_japanese_vowels")["japanese_vowels"]()
    test = data.splits["test"].take(np.arange(45))
    assert test.lengths["voice"].tolist() == [len(x) for x in vowels["TEST"]]
    assert test.targets["speaker"].tolist() == [i % 9 for i in range(45)]
    frames = np.concatenate(
        [x[:length] for x, length in zip(test.inputs["voice"], test.lengths["voice"], strict=True)]
    )
    # Standardized by the training frames: the same up to one mean and scale per feature.
    raw = np.concatenate(vowels["TEST"])
    for a, b in zip(frames.T, raw.T, strict=True):
        assert np.corrcoef(a, b)[0, 1] == pytest.approx(1, abs=1e-6)
    train = data.splits["train"].take(np.arange(36))
    np.testing.assert_array_equal(np.bincount(train.targets["speaker"]), [4] * 9)


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_needs_at_most_20_lines(name):
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    lines = set()
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.stmt) and not is_text:
            lines |= set(range(node.lineno, node.end_lineno + 1))
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.Import | ast.ImportFrom) or is_text:
            lines -= set(range(node.lineno, node.end_lineno + 1))
    text = (FOLDER / f"{name}.py").read_text().splitlines()
    code = [text[line - 1].strip() for line in sorted(lines)]
    # Brackets alone on a line are the formatter's.
    assert len([line for line in code if line.strip("()[]{},")]) <= 20, code


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_trains(load, name, reviews, vowels, tmp_path):
    run = dataclasses.replace(load(name)["experiment"](), epochs=1)
    fitted = mmjax.fit(run, tmp_path / "run", devices=jax.devices()[:1])
    assert np.isfinite(fitted.test[0]["loss"])


def test_a_missing_file_is_named(load, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOTHING_REVIEWS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"WomensClothing\*\.parquet"):
        load("tutorial_clothing_reviews")["experiment"]()


def test_weighted_f1_is_that_of_scikit_learn(load):
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(50, 3)), rng.choice(3, 50, p=[0.7, 0.2, 0.1])
    wanted = sklearn.f1_score(target, prediction.argmax(1), average="weighted")
    assert load("clothing_reviews")["weighted_f1"](prediction, target) == pytest.approx(wanted)


def test_a_share_of_the_reviews_is_split_as_all_are_and_tested_on_all(load, reviews):
    sizes = {s: len(x) for s, x in load("clothing_reviews")["reviews"](share=0.5).splits.items()}
    assert sizes == {"train": 80, "validation": 10, "test": 20, "unused": 90}


@pytest.mark.parametrize(("name", "arms"), [("clothing_reviews", 6), ("speaker_transfer", 8)])
def test_the_arms_of_a_study_are_settings_of_its_experiment(load, name, arms):
    study = load(name)["STUDY"]
    made = make_study_arms(study, study.base.as_buildable())
    assert len(made) == arms
    frozen = [arm for arm in made if "frozen" in arm]
    assert frozen and all(made[arm].config.trainable == ("heads_*",) for arm in frozen)
