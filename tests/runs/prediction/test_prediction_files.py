"""Files of predictions: every format, kept columns, streaming, and refusals that write nothing."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmjax.data.dataset import Modality, Preparation, Task
from mmjax.data.kinds import Numbers
from mmjax.data.spec import Spec
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification, MultiLabel, Regression
from mmjax.model import Model
from mmjax.runs.prediction.prediction_files import predict_file
from mmjax.runs.trained import Trained

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained():
    """A model of random parameters that reads the columns x and y."""
    heads = {"kind": Classification(2), "tags": MultiLabel(2), "size": Regression()}
    model = Model({"body": MLPEncoder((4,))}, Concat(), heads)
    inputs, present = {"body": np.zeros((1, 2), np.float32)}, {"body": np.ones(1, bool)}
    import jax

    variables = jax.jit(lambda k: model.init(k, inputs, present, {}, train=False))(
        jax.random.key(0)
    )
    spec = Spec(
        "pets",
        {"body": Modality((2,))},
        {
            "kind": Task("classification", ("cat", "dog")),
            "size": Task("regression", unit="cm"),
            "tags": Task("multilabel", ("big", "tame")),
        },
        {"body": Preparation(Numbers(("x", "y")))},
    )
    return Trained(model, spec, (0,), jax.device_get(variables), "float32", 4, lambda: None)


def make_frame(rows):
    numbers = np.random.default_rng(0).normal(size=(rows, 2)).round(3)
    frame = pd.DataFrame(numbers, columns=["x", "y"])
    return frame.assign(id=[f"é,{i}" for i in range(rows)], day=pd.Timestamp("2024-02-29"))


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_file_keeps_its_other_columns_and_has_a_group_per_task(trained, tmp_path, ending):
    frame = make_frame(10)
    frame.loc[[0, 1], ["x", "y"]] = None  # the first batch begins without any value
    frame.to_parquet(tmp_path / "new.parquet")
    out = tmp_path / f"out.{ending}"
    seen = []
    rows = predict_file(
        trained, tmp_path / "new.parquet", out, embeddings=True, advance=seen.append
    )
    assert (rows, seen) == (10, [4, 4, 2])
    expected = trained.predict(frame)
    if ending == "csv":
        table = pd.read_csv(out)
        table["tags/prediction"] = table["tags/prediction"].map(json.loads, na_action="ignore")
        table["size/embedding"] = table["size/embedding"].map(json.loads)
    else:
        table = pd.read_parquet(out) if ending == "parquet" else pd.read_json(out, lines=True)
    assert table["id"].tolist() == frame["id"].tolist()
    assert list(table)[:3] == ["id", "day", "kind/prediction"]
    kinds = table["kind/prediction"].astype(object)
    assert kinds.where(kinds.notna(), None).tolist() == expected["kind"].names
    np.testing.assert_array_equal(
        table["kind/probability/dog"].astype(np.float32), expected["kind"].probabilities[:, 1]
    )
    np.testing.assert_array_equal(
        table["size/prediction"].astype(np.float32), expected["size"].values
    )
    assert list(table["tags/prediction"][2]) == expected["tags"].names[2]
    np.testing.assert_allclose(
        np.stack(table["size/embedding"]), trained.embed(frame).tasks["size"], rtol=1e-6
    )
    if ending == "parquet":
        assert table["day"].dtype.kind == "M"


@pytest.mark.parametrize(
    "text, out, message",
    [
        ("x,z\n1,2\n", "out.csv", "column 'y' of modality 'body' is missing"),
        ("x,y\n1,two\n", "out.csv", "line 2, 'body': 'two' is not a number"),
        ("x,y\n" + "1,2\n" * 9 + "3\n", "out.csv", "line 11: 1 cells; the header has 2"),
        ("x,y\n", "out.csv", "has no rows"),
        ("", "out.csv", "has no rows"),
        ("x,y\n1,2\n", "out.txt", r"must end in .csv, .parquet, .jsonl"),
        ("x,y\n1,2\n", "new.csv", "is the file of the examples"),
        ("x,y\n1,2\n", "none/out.csv", "the folder of .* does not exist"),
        ("x,y\n1,2\n", "old.csv", "exists; add --overwrite"),
        (
            "x,y,kind/prediction\n1,2,3\n",
            "out.csv",
            "'kind/prediction' of the examples has the name",
        ),
    ],
)
def test_a_refusal_writes_nothing(trained, tmp_path, text, out, message):
    (tmp_path / "new.csv").write_text(text)
    (tmp_path / "old.csv").write_text("kept")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises((ValueError, FileExistsError), match=message):
        predict_file(trained, tmp_path / "new.csv", tmp_path / out, overwrite=out == "new.csv")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_overwrite_replaces_a_file_and_a_failure_keeps_it(trained, tmp_path):
    (tmp_path / "new.csv").write_text("x,y\n1,2\n")
    (tmp_path / "out.csv").write_text("old")
    (tmp_path / "bad.csv").write_text("x,y\n" + "1,2\n" * 8 + "1,?\n")
    with pytest.raises(ValueError, match="line 10"):
        predict_file(trained, tmp_path / "bad.csv", tmp_path / "out.csv", overwrite=True)
    assert (tmp_path / "out.csv").read_text() == "old"
    predict_file(trained, tmp_path / "new.csv", tmp_path / "out.csv", overwrite=True)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2


@pytest.mark.slow
def test_the_command_predicts_without_the_data_and_the_experiment(tmp_path):
    """The whole way in processes of its own: train, delete the data, predict."""
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        kind = rng.integers(0, 2, 60)
        frame = pd.DataFrame({"x": kind + rng.normal(size=60), "kind": np.array(["a", "b"])[kind]})
        frame.to_csv(tmp_path / "data" / f"{split}.csv", index=False)
    test = tmp_path / "kept.csv"
    test.write_bytes((tmp_path / "data" / "test.csv").read_bytes())
    (tmp_path / "mine.py").write_text(
        "import os, optax\n"
        "from mmjax import Experiment, Model, auto_config, cli, data, encoders, fusion, heads\n"
        "HERE = os.path.dirname(__file__)\n"
        "def load_data():\n"
        "    files = {s: f'{HERE}/data/{s}.csv' for s in ('train', 'validation', 'test')}\n"
        "    return data.from_table(files, {'body': 'x'}, {'kind': 'kind'})\n"
        "@auto_config\n"
        "def experiment():\n"
        "    model = Model({'body': encoders.MLPEncoder((4,))}, fusion.Concat(),\n"
        "                  {'kind': heads.Classification(2)})\n"
        "    return Experiment(load_data(), model, optax.adam(0.01), epochs=1, batch_size=20)\n"
        "if __name__ == '__main__':\n"
        "    cli.main(experiment)\n"
    )
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "JAX_PLATFORMS": "cpu",
        "MMJAX_CACHE": str(tmp_path / "cache"),
    }

    def call(*command, code=0):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stderr

    call("mine.py", "--workdir", "run", "--seeds", "0", "1", "--predictions")
    for name in ("data/train.csv", "data/validation.csv", "data/test.csv", "mine.py"):
        (tmp_path / name).unlink()
    mmjax = ("-c", "from mmjax import cli; cli.script()")
    predict = (*mmjax, "predict", "run", "--data", str(test), "--out", "out.csv")
    call(*predict, "--seed", "1", "--batch-size", "7")
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    result = json.loads((tmp_path / "run" / "all" / "result.json").read_text())
    accuracy = np.mean([row["kind"] == row["kind/prediction"] for row in rows])
    assert accuracy == pytest.approx(result["seeds"]["1"]["test"]["kind/accuracy"], abs=1e-6)
    stored = pd.read_parquet(tmp_path / "run" / "all" / "predictions-seed1.parquet")
    assert stored["kind/prediction"].tolist() == [row["kind/prediction"] for row in rows]
    assert stored["kind/label"].tolist() == [row["kind"] for row in rows]
    assert "add --overwrite" in call(*predict, code=1)
    assert "no arm 'x', only all" in call(*predict, "--overwrite", "--arm", "x", code=2)
    assert "load one seed to embed" in call(*predict, "--overwrite", "--embeddings", code=2)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 61


@pytest.mark.slow
def test_memory_does_not_grow_with_rows(tmp_path):
    """Ten times the rows take less than a tenth more memory than the table itself has."""
    program = (
        "import resource, sys, pathlib\n"
        "import numpy as np, jax\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "import test_prediction_files as t\n"
        "trained = t.trained.__wrapped__()\n"
        "from mmjax.runs.prediction.prediction_files import predict_file\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "predict_file(trained, path / 'small.csv', path / 'a.csv', batch_size=256)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "predict_file(trained, path / 'large.csv', path / 'b.csv', batch_size=256)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    rows = [f"0.5,{i},{'n' * 200}" for i in range(100_000)]
    for name, count in (("small", 10_000), ("large", 100_000)):
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,y,note", *rows[:count]]) + "\n")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), str(Path(__file__).parent)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    growth = int(done.stdout.splitlines()[-1])  # KiB; the large table has 21 MB more
    assert growth < 4_000, growth
    assert len((tmp_path / "b.csv").read_text().splitlines()) == 100_001
