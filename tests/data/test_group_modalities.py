import jax
import numpy as np
import optax
import pytest
from PIL import Image

import mmjax
from mmjax.data import from_arrays, group_modalities
from mmjax.data.augment import make_example_augmentation
from mmjax.data.describe.plot_examples import draw_examples
from mmjax.data.describe.tables import describe_dataset
from mmjax.encoders import GraphEncoder, MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model

PARTS = {"nodes": "atoms", "edges": "bonds"}


def make_graphs(count, seed):
    """Rings and chains of 4 to 7 nodes, which differ by one edge; some are missing."""
    rng = np.random.default_rng(seed)
    atoms, bonds, shapes = [], [], []
    for i in range(count):
        n, ring = int(rng.integers(4, 8)), bool(rng.integers(2))
        forward = [(j, (j + 1) % n) for j in range(n if ring else n - 1)]
        missing = i % 9 == 8
        atoms.append(None if missing else rng.normal(1, 0.1, size=(n, 2)))
        bonds.append(None if missing else np.array(forward + [(b, a) for a, b in forward]))
        shapes.append("ring" if ring else "chain")
    return {"atoms": atoms, "bonds": bonds, "noise": rng.normal(size=(count, 3)), "shape": shapes}


def make_data():
    sizes = {"train": 300, "validation": 60, "test": 120}
    splits = {name: make_graphs(n, seed) for seed, (name, n) in enumerate(sizes.items())}
    return from_arrays(splits, ["atoms", "bonds", "noise"], ["shape"], standardize=[])


@pytest.fixture(scope="module")
def graphs():
    return group_modalities(make_data(), {"molecule": PARTS})


def test_a_group_holds_what_its_modalities_held(graphs):
    flat, grouped = (d.splits["test"].take(np.array([7, 8])) for d in (make_data(), graphs))
    for part, name in PARTS.items():
        np.testing.assert_array_equal(grouped.inputs["molecule"][part], flat.inputs[name])
        np.testing.assert_array_equal(grouped.lengths["molecule"][part], flat.lengths[name])
    assert grouped.present["molecule"].tolist() == [True, False]
    assert set(graphs.modalities) == {"molecule", "noise"}


@pytest.mark.slow
def test_a_model_of_graphs_and_vectors_learns(graphs, tmp_path):
    experiment = mmjax.Experiment(
        data=graphs,
        model=Model(
            encoders={"molecule": GraphEncoder((16, 16), pool="mean"), "noise": MLPEncoder((4,))},
            fusion=Concat(),
            heads={"shape": Classification(2)},
        ),
        optimizer=optax.adam(1e-2),
        epochs=60,
        eval_every=60,
        batch_size=30,
        modality_dropout={"molecule": 0.05},
    )
    fitted = mmjax.fit(experiment, tmp_path, devices=jax.devices()[:2])
    # A ninth of the graphs is missing, of which half can be guessed.
    assert fitted.test[0]["shape/accuracy"] > 0.85


def test_streamed_groups_are_the_same(graphs):
    class Reader:
        def __init__(self, source):
            self.source = source

        def __len__(self):
            return len(self.source)

        def take(self, indices):
            return self.source.take(indices)

    import dataclasses

    flat = make_data()
    lazy = dataclasses.replace(flat, splits={n: Reader(s) for n, s in flat.splits.items()})
    rows = np.array([3, 17, 8])
    jax.tree.map(
        np.testing.assert_array_equal,
        group_modalities(lazy, {"molecule": PARTS}).splits["train"].take(rows),
        graphs.splits["train"].take(rows),
    )


def test_augmentation_changes_real_values_only(graphs):
    def double_nodes(key, x, length):
        return {**x, "nodes": 2 * x["nodes"] + 1}

    example = jax.tree.map(lambda x: x[7], graphs.splits["test"].batch)
    new = make_example_augmentation({"molecule": double_nodes}, 0.0)(jax.random.key(0), example)
    end = example.lengths["molecule"]["nodes"]
    nodes, old = (np.asarray(e.inputs["molecule"]["nodes"]) for e in (new, example))
    np.testing.assert_array_equal(nodes[:end], 2 * old[:end] + 1)
    np.testing.assert_array_equal(nodes[end:], 0)


def test_groups_are_described_and_drawn(graphs, tmp_path):
    rows = {table.title: table.rows for table in describe_dataset(graphs)}["Modalities"]
    assert [row[0] for row in rows[1:]] == ["noise", "molecule.nodes", "molecule.edges"]
    assert rows[2][1:3] == ["sequence, up to 7 x 2", "float32"]
    draw_examples(graphs, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 400


@pytest.mark.parametrize(
    "groups, message",
    [
        ({"m": {"nodes": "atom"}}, "has no modality 'atom' to group"),
        ({"m": {"nodes": "atoms"}, "n": {"nodes": "atoms"}}, "'atoms' is part of 2 groups"),
        ({"noise": PARTS}, "already has a modality 'noise'"),
        ({"m": {}}, "'m' has no parts"),
    ],
)
def test_groups_that_cannot_be_made_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        group_modalities(make_data(), groups)


def test_edges_of_nodes_that_a_graph_lacks_are_refused_by_row():
    splits = {"train": make_graphs(9, 0)}
    splits["train"]["bonds"][4] = np.array([[0, 1], [1, 99]])
    data = from_arrays(splits, ["atoms", "bonds", "noise"], ["shape"])
    with pytest.raises(ValueError, match=r"Edge 1 of 'molecule' in row 4 is \[1, 99\]"):
        group_modalities(data, {"molecule": PARTS})
