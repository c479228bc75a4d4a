"""Categories: tokens from the training split, with places for gaps, unknown and rare ones."""

import json

import jax
import numpy as np
import optax
import pytest

import mmjax
from mmjax import Model
from mmjax.data import Category, from_table
from mmjax.encoders import MLPEncoder, TextEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification

COLORS = ["red", "blue", "red", "blue", "", "green", "red", "pink", "blue", "red"]
SIZES = ["1", "10", "", "2", "2", "1", "3", "10", "1", ""]


@pytest.mark.filterwarnings("ignore:.*tokens of modality 'car' in 'test' are unknown")
def test_tokens_are_learned_from_train_per_column(load):
    # Of the first five rows, 1 and 10 occur once, so are rare; green, pink and 3 are unknown.
    data = load({"color": COLORS, "size": SIZES}, {"car": Category(("color", "size"))})
    car = data.modalities["car"]
    assert car.vocabulary == (
        *("color: missing", "color: unknown", "color: blue", "color: red"),
        *("size: missing", "size: unknown", "size: 2"),
    )
    assert car.describe() == "2 categories, 7 tokens" and car.shape == (2,)
    train, test = (data.splits[s].batch for s in ("train", "test"))
    assert train.inputs["car"].tolist() == [[3, 5], [2, 5], [3, 4], [2, 6], [0, 6]]
    assert test.inputs["car"].tolist() == [[1, 5], [3, 5], [1, 5], [2, 5], [3, 4]]
    assert train.inputs["car"].dtype == np.int32 and train.present["car"].all()


@pytest.mark.filterwarnings("ignore:.*tokens of modality 'car' in 'test' are unknown")
def test_rows_without_any_category_miss_the_modality(load):
    data = load({"color": COLORS}, {"car": Category("color", min_count=1)})
    assert data.splits["train"].batch.present["car"].tolist() == [True] * 4 + [False]


def test_numbers_are_sorted_by_value_and_whole_floats_are_whole_numbers():
    learned = Category("n", min_count=1).learn([[10, 9.0, "1"]], None)
    assert list(learned["tokens"][0]) == ["1", "9", "10"]
    assert json.loads(json.dumps(learned)) == learned
    assert Category("n").read_feature([b"9"], learned).tolist() == [3]
    assert Category("n").read_feature([""], learned) is None


def test_many_unknown_categories_give_a_warning(load):
    with pytest.warns(UserWarning, match="60% of the tokens of modality 'car' in 'test' are unk"):
        load({"color": ["a", "b"] * 5 + ["c"] * 6 + ["a"] * 4}, {"car": Category("color")})


def test_cells_that_are_no_names_are_refused_with_their_place(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {"c": [[1], [2]] * 20, "y": ["a", "b"] * 20}
    parquet.write_table(pyarrow.table(table), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"row \d+, 'c': it is \[1\] of type list; a class must"):
        mmjax.data.from_table(tmp_path / "t.parquet", {"c": Category("c")}, {"y": "y"})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*have the same inputs as one of")
def test_a_model_learns_from_categories(tmp_path):
    rows = [f"{c},{i % 2},{int(c in ('red', 'pink'))}" for i in range(50) for c in COLORS[3:8] if c]
    (tmp_path / "t.csv").write_text("\n".join(["color,size,y", *rows]))
    data = from_table(tmp_path / "t.csv", {"car": Category(("color", "size"))}, {"y": "y"})
    embed = TextEncoder(len(data.modalities["car"].vocabulary), 4, MLPEncoder((8,)))
    experiment = mmjax.Experiment(
        data=data,
        model=Model({"car": embed}, Concat(), {"y": Classification(2)}),
        optimizer=optax.adam(0.1),
        epochs=10,
        eval_every=10,
        batch_size=20,
    )
    fitted = mmjax.fit(experiment, tmp_path / "run", devices=jax.devices()[:1])
    assert fitted.test[0]["y/accuracy"] == 1
