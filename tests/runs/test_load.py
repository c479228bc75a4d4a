"""A run becomes a trained model, whose predictions are those that its test metrics measured."""

import json
import shutil
import warnings

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

import mmjax
from mmjax import data, encoders, files, fusion, heads
from mmjax.config import auto_config, dump_config
from mmjax.files.run_files import write_config_file
from mmjax.model import Model
from mmjax.runs.examples import convert_to_columns, iterate_examples
from mmjax.runs.trained import make_trained
from mmjax.train.run_arms import run

ROWS = 90


def pets(split, seed=0):
    """A table whose rows have numbers far from 0, and notes; some cells are missing."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, ROWS)
    weight = 1000 + 50 * kind + rng.normal(scale=5, size=ROWS)
    words = np.array(["barks loudly", "purrs", "swims in circles"])[kind]
    keeps = rng.random((2, ROWS)) < 0.85
    keeps[0] |= ~keeps[1]
    return {
        "weight": [w if k else None for w, k in zip(weight.round(3), keeps[0], strict=True)],
        "note": [w if k else None for w, k in zip(words, keeps[1], strict=True)],
        "kind": [("dog", "cat", "fish")[k] for k in kind],
        "age": (kind + rng.normal(size=ROWS)).round(3).tolist(),
    }


def write_csv(path, columns, names=None):
    names = list(columns) if names is None else names
    rows = zip(*(columns[name] for name in names), strict=True)
    lines = [",".join("" if cell is None else str(cell) for cell in row) for row in rows]
    path.write_text("\n".join([",".join(names), *lines]) + "\n")
    return path


@auto_config
def experiment(folder: str):
    return mmjax.Experiment(
        data=data.from_table(
            {
                "train": folder + "/train.csv",
                "validation": folder + "/validation.csv",
                "test": folder + "/test.csv",
            },
            inputs={"body": data.Numbers("weight"), "note": data.Text("note", level="word")},
            targets={"kind": "kind", "age": data.Value("age", unit="years")},
        ),
        model=Model(
            encoders={
                "body": encoders.MLPEncoder((8,)),
                "note": encoders.TextEncoder(12, 4, encoders.RecurrentEncoder(width=5)),
            },
            fusion=fusion.Concat(),
            heads={"kind": heads.Classification(3), "age": heads.Regression(mean=1.0, scale=1.0)},
        ),
        optimizer=optax.adam(3e-2),
        epochs=2,
        batch_size=16,
        eval_batch_size=32,
    )


@pytest.fixture(scope="module")
def pets_run(tmp_path_factory):
    """A run of two seeds whose data are gone, and the columns of its splits."""
    root = tmp_path_factory.mktemp("pets")
    columns = {}
    for seed, split in enumerate(("train", "validation", "test")):
        columns[split] = pets(split, seed)
        (root / "data").mkdir(exist_ok=True)
        write_csv(root / "data" / f"{split}.csv", columns[split])
    config = experiment.as_buildable(str(root / "data"))
    home = root / "run" / "all"
    home.mkdir(parents=True)
    write_config_file(home / "config.json", dump_config(config))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(
            {"all": lambda: experiment(str(root / "data"))},
            workdir=root / "run",
            seeds=(3, 1),
            devices=1,
        )
    shutil.rmtree(root / "data")
    return root / "run", columns


def score(prediction, columns):
    """Accuracy and mean absolute error of predictions, from their names and values alone."""
    right = [a == b for a, b in zip(prediction["kind"].names, columns["kind"], strict=True)]
    return np.mean(right), np.abs(prediction["age"].values - np.array(columns["age"])).mean()


def test_predictions_have_the_stored_test_metrics(pets_run):
    directory, columns = pets_run
    stored = json.loads((directory / "all" / "result.json").read_text())["seeds"]
    for seed in (3, 1):
        trained = mmjax.load(directory, seed=seed)
        accuracy, error = score(trained.predict(columns["test"]), columns["test"])
        assert accuracy == pytest.approx(stored[str(seed)]["test"]["kind/accuracy"], abs=1e-7)
        assert error == pytest.approx(stored[str(seed)]["test"]["age/mae"], rel=1e-5)


def test_an_ensemble_averages_probabilities_and_values(pets_run):
    directory, columns = pets_run
    alone = [mmjax.load(directory, seed=seed).predict(columns["test"]) for seed in (3, 1)]
    both = mmjax.load(directory).predict(columns["test"])
    np.testing.assert_allclose(
        both["kind"].probabilities,
        np.mean([p["kind"].probabilities.astype(np.float64) for p in alone], axis=0),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        both["age"].values, np.mean([p["age"].values for p in alone], axis=0), rtol=1e-5
    )
    assert alone[0]["kind"].names != alone[1]["kind"].names  # else it would show nothing
    swapped = mmjax.load(directory, seed=(1, 3)).predict(columns["test"])
    np.testing.assert_allclose(swapped["age"].values, both["age"].values, rtol=1e-5)


@pytest.mark.slow
def test_the_metrics_of_an_ensemble_are_those_of_its_predictions(pets_run):
    directory, columns = pets_run
    ensemble = mmjax.load(directory)
    batch = next(iterate_examples(ensemble.spec, columns["test"], 1000)).batch
    kinds = ensemble.spec.tasks["kind"].classes
    yes = np.ones(ROWS, bool)
    batch = batch._replace(
        targets={
            "kind": np.array([kinds.index(k) for k in columns["test"]["kind"]], np.int32),
            "age": np.array(columns["test"]["age"], np.float32),
        },
        labeled={"kind": yes, "age": yes},
    )
    prediction = ensemble.predict(columns["test"])
    accuracy, error = score(prediction, columns["test"])
    metrics = ensemble.evaluate(batch)
    assert metrics["kind/accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert metrics["age/mae"] == pytest.approx(error, rel=1e-5)
    right = prediction["kind"].probabilities[np.arange(ROWS), batch.targets["kind"]]
    assert metrics["kind/loss"] == pytest.approx(-np.log(right.astype(np.float64)).mean(), rel=1e-5)
    with pytest.raises(ValueError, match="no targets of task"):
        ensemble.evaluate(batch._replace(targets={}, labeled={}))


def test_every_form_of_examples_gives_the_same(pets_run, tmp_path):
    import pandas as pd

    directory, columns = pets_run
    trained = mmjax.load(directory, seed=3)
    expected = trained.predict(columns["test"])["kind"].probabilities
    inputs = {name: columns["test"][name] for name in ("weight", "note")}
    frame = pd.DataFrame(inputs)
    frame.to_parquet(tmp_path / "new.parquet")
    weights = np.array([np.nan if w is None else w for w in inputs["weight"]])
    notes = np.array([n or "" for n in inputs["note"]])
    np.savez(tmp_path / "new.npz", weight=weights, note=notes)
    forms = [
        frame,
        {"weight": weights, "note": notes},
        write_csv(tmp_path / "new.csv", inputs),
        str(tmp_path / "new.parquet"),
    ]
    for form in forms:
        actual = trained.predict(form, batch_size=7)["kind"].probabilities
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_a_frame_of_polars_is_one_of_pandas(pets_run):
    polars = pytest.importorskip("polars")
    columns = {name: pets_run[1]["test"][name] for name in ("weight", "note")}
    assert dict(convert_to_columns(polars.DataFrame(columns))) == columns


@pytest.mark.slow
def test_the_variables_and_the_model_are_those_of_the_run(pets_run):
    directory, _columns = pets_run
    trained = mmjax.load(directory / "all", seed=1)
    assert trained.seeds == (1,)
    weights = np.array([1000.0, 1050.0], np.float32)[:, None]
    scale = trained.spec.preparations["body"].scale
    inputs = {"body": (weights - scale.mean) / scale.deviation, "note": np.zeros((2, 3), int)}
    present = {"body": np.ones(2, bool), "note": np.zeros(2, bool)}
    lengths = {"note": np.zeros(2, int)}
    logits = trained.model.apply(dict(trained.variables), inputs, present, lengths, train=False)
    with pytest.warns(UserWarning, match="predicts without modality 'note'"):
        prediction = trained.predict({"weight": [1000, 1050]})
    np.testing.assert_allclose(
        jax.nn.softmax(logits["kind"]), prediction["kind"].probabilities, rtol=1e-5
    )


@pytest.mark.slow
def test_embeddings_are_the_inputs_of_the_heads(pets_run):
    directory, columns = pets_run
    trained = mmjax.load(directory, seed=3)
    embeddings = trained.embed(columns["test"])
    outputs = trained.predict(columns["test"])["age"].values
    head = trained.params["heads_age"]["output"]
    actual = 1 + embeddings.tasks["age"] @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(actual[:, 0], outputs, rtol=1e-4, atol=1e-5)
    missing = np.array([w is None for w in columns["test"]["weight"]])
    np.testing.assert_array_equal(np.isnan(embeddings.modalities["body"]).all(axis=1), missing)
    with pytest.raises(ValueError, match="load one seed to embed"):
        mmjax.load(directory).embed(columns["test"])


def test_an_unknown_word_is_the_unknown_token_and_a_long_text_is_cut(pets_run):
    trained = mmjax.load(pets_run[0], seed=3)
    with pytest.warns(UserWarning, match="cut off after 3 steps"):
        long = trained.predict({"note": ["swims in circles purrs"], "weight": [1000]})
    short = trained.predict({"note": ["swims in circles"], "weight": [1000]})
    np.testing.assert_array_equal(long["kind"].probabilities, short["kind"].probabilities)
    a, b = (
        trained.predict({"note": [w], "weight": [1000]})["age"].values for w in ("moos", "neighs")
    )
    np.testing.assert_array_equal(a, b)


def test_an_example_without_any_modality_has_no_prediction(pets_run):
    trained = mmjax.load(pets_run[0], seed=3)
    prediction = trained.predict({"note": ["purrs", None], "weight": [None, np.nan]})
    assert prediction["kind"].names[1] is None
    assert np.isnan(prediction["age"].values).tolist() == [False, True]


@pytest.mark.parametrize(
    "examples, message",
    [
        ({"wait": [1.0]}, "no column of any modality: the model reads weight, note; .* are wait"),
        ({"weight": ["heavy"]}, r"examples, row 0, 'body': 'heavy' is not a number"),
        ({"weight": [1.0], "note": ["a", "b"]}, "several lengths"),
        ({"weight": []}, "no examples were given"),
        ({"weight": "1.0"}, "'weight' is a str"),
        ([1.0], "examples are of type list"),
        (np.zeros((2, 1)), "examples are of type ndarray"),
        ("new.txt", "its name must end in"),
        (lambda trained: trained.experiment, "train.csv"),
    ],
)
@pytest.mark.filterwarnings("ignore:column .* is missing")
def test_examples_that_do_not_fit_are_refused(pets_run, examples, message):
    trained = mmjax.load(pets_run[0], seed=3)
    with pytest.raises((ValueError, OSError), match=message):
        examples(trained) if callable(examples) else trained.predict(examples)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"arm": "none"}, "no arm 'none', only all"),
        ({"seed": 9}, "no seed 9, only 3, 1"),
        ({"seed": (3, 3)}, "several that differ"),
        ({"seed": "3"}, "a text; give whole numbers"),
    ],
)
def test_an_unknown_arm_or_seed_is_named(pets_run, arguments, message):
    with pytest.raises(ValueError, match=message):
        mmjax.load(pets_run[0], **arguments)


def copy_run(pets_run, tmp_path):
    return shutil.copytree(pets_run[0], tmp_path / "run") / "all"


def test_a_run_without_a_finished_seed_is_refused(pets_run, tmp_path):
    home = copy_run(pets_run, tmp_path)
    (home / "result.json").unlink()
    with pytest.raises(ValueError, match="has no finished seed: it has no result"):
        mmjax.load(home)
    shutil.rmtree(home)
    with pytest.raises(ValueError, match="holds no run"):
        mmjax.load(home)


def test_a_damaged_checkpoint_is_noticed(pets_run, tmp_path):
    home = copy_run(pets_run, tmp_path)
    result = json.loads((home / "result.json").read_text())
    del result["sha256"]
    result["seeds"]["3"]["best_params_sha256"] = "0" * 64
    files.write_json(home / "result.json", result)
    with pytest.raises(ValueError, match="seed 3 are not those of the result"):
        mmjax.load(home)
    assert mmjax.load(home, seed=1).seeds == (1,)
    for path in (home / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(ValueError, match="no checkpoint that can be read"):
        mmjax.load(home)


def test_a_run_without_a_spec_says_what_to_do(pets_run, tmp_path):
    home = copy_run(pets_run, tmp_path)
    (home / "spec.json").unlink()
    with pytest.raises(ValueError, match=r"no spec.json.*experiment=\.\.\."):
        mmjax.load(home)


@pytest.mark.slow
@pytest.mark.parametrize("normed", [False, True])
def test_a_run_from_python_needs_its_experiment(toy, tmp_path, normed):
    """With batch statistics, too: evaluation in the run and here uses the same averages."""
    model = toy.model()
    if normed:
        model = model.clone(
            encoders={**model.encoders, "vector": encoders.Wrap(nn.BatchNorm(momentum=0.5))}
        )
    whole = toy.experiment(model=model, epochs=1)
    run({"all": lambda: whole}, workdir=tmp_path, devices=1)
    with pytest.raises(ValueError, match="does not store its experiment"):
        mmjax.load(tmp_path)
    trained = mmjax.load(tmp_path, experiment=whole)
    assert ("batch_stats" in trained.variables) == normed
    test = whole.data.splits["test"]
    prediction = trained.predict(test)
    again = make_trained(
        whole, jax.tree.map(lambda x: x[None], dict(trained.variables)), [0]
    ).predict(test.batch._replace(targets={}, labeled={}))
    np.testing.assert_array_equal(prediction["size"].values, again["size"].values)
    stored = json.loads((tmp_path / "all" / "result.json").read_text())["seeds"]["0"]["test"]
    for name, value in trained.evaluate(whole.data).items():
        assert value == pytest.approx(stored[name], rel=1e-4, abs=1e-6), name
    labeled = test.batch.labeled["kind"]
    right = prediction["kind"].indices == test.batch.targets["kind"]
    assert right[labeled].mean() == pytest.approx(stored["kind/accuracy"], abs=1e-6)
    with pytest.raises(ValueError, match="modality 'vector' has shape"):
        trained.predict({"vector": np.zeros((2, 5)), "sequence": np.zeros((2, 7, 3))})
    with (
        pytest.raises(ValueError, match="nan in row 1"),
        pytest.warns(UserWarning, match="without modality 'sequence'"),
    ):
        trained.predict({"vector": [np.zeros(6), np.array([np.nan] + [0.0] * 5)]})
