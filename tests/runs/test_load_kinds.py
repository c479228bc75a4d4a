"""A run on columns of many kinds predicts on new rows, without its training data."""

import json
import shutil

import numpy as np
import optax
import pytest

import mmjax
from mmjax import data, encoders, fusion, heads
from mmjax.config import auto_config, dump_config
from mmjax.files.run_files import write_config_file
from mmjax.model import Model
from mmjax.train.run_arms import run

ROWS = 240
COLORS, PLACES = ("red", "blue", "green"), ("north", "south")


def make_rows():
    """Cells with gaps, whose split is the column "part"; "odd" occurs in the test split alone."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(ROWS):
        color, place = COLORS[rng.integers(3)], PLACES[rng.integers(2)]
        size, weight = rng.normal(size=2).round(4).tolist()
        rows.append(
            {
                "part": ("train", "train", "validation", "test")[i % 4],
                "color": "odd" if i % 20 == 19 else color,
                "place": place if rng.random() < 0.9 else "",
                "size": size if rng.random() < 0.8 else "",
                "weight": weight,
                "paid": ("true", "false")[rng.integers(2)],
                "when": f"2024-{i % 12 + 1:02d}-{i % 28 + 1:02d}",
                "kind": "ab"[int(weight + (color == "red") > 0.5)],
            }
        )
    return rows


@auto_config
def experiment(table: str):
    return mmjax.Experiment(
        data=data.from_table(
            table,
            inputs={
                "label": data.Category(("color", "place")),
                "body": data.Numbers(("size", "weight"), fill="median"),
                "paid": data.Boolean("paid"),
                "when": data.DateTime("when"),
            },
            targets={"kind": "kind"},
            split="part",
        ),
        model=Model(
            encoders={
                "label": encoders.TextEncoder(12, 4, encoders.MLPEncoder((8,))),
                "body": encoders.PiecewiseLinearEncoder(4, width=3),
                "paid": encoders.MLPEncoder((4,)),
                "when": encoders.PeriodicEncoder(3, width=3),
            },
            fusion=fusion.Concat(),
            heads={"kind": heads.Classification(2)},
        ),
        optimizer=optax.adam(3e-2),
        epochs=5,
        eval_every=5,
        batch_size=20,
    )


@pytest.mark.slow
def test_new_rows_get_the_fills_tokens_and_bins_of_training(tmp_path):
    rows, table = make_rows(), tmp_path / "data" / "t.csv"
    table.parent.mkdir()
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    table.write_text("\n".join(lines))
    home = tmp_path / "run" / "all"
    home.mkdir(parents=True)
    write_config_file(home / "config.json", dump_config(experiment.as_buildable(str(table))))
    run({"all": lambda: experiment(str(table))}, workdir=tmp_path / "run", seeds=(0,), devices=1)
    shutil.rmtree(table.parent)
    trained = mmjax.load(tmp_path / "run")
    assert len(trained.model.encoders["body"].edges) == 3  # two numbers and an indicator
    test = [row for row in rows if row["part"] == "test"]
    columns = {name: [row[name] for row in test] for name in rows[0]}
    predicted = trained.predict({n: c for n, c in columns.items() if n not in ("part", "kind")})
    accuracy = np.mean(
        [a == b for a, b in zip(predicted["kind"].names, columns["kind"], strict=True)]
    )
    stored = json.loads((home / "result.json").read_text())["seeds"]["0"]["test"]
    assert accuracy == pytest.approx(stored["kind/accuracy"]) and accuracy > 0.7
