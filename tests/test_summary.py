"""The summary's numbers against those counted by hand, and what it looks like."""

import functools
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import cli, summary
from mmjax.auxiliary import InfoNCE
from mmjax.balance import mgda
from mmjax.encoders import (
    ConvEncoder,
    Features,
    RecurrentEncoder,
    TextEncoder,
    elman,
    gru,
)
from mmjax.fusion import Concat, Late, Sum
from mmjax.heads import Classification, Regression, SequenceLabeling
from mmjax.inspection.flops import count_flops
from mmjax.model import Model
from mmjax.printing.formatting import format_example_shapes, format_module, format_with_unit
from mmjax.sharing import CGC, CrossStitch, HardSharing, MMoE, TaskSpecific
from mmjax.summary import format_summary_markdown, summarize_experiment, summarize_model
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import Batch

B = 5


def batch():
    """Four modalities, three tasks."""
    inputs = {
        "features": np.zeros((B, 4, 3), np.float32),
        "image": np.zeros((B, 6, 6, 2), np.float32),
        "sound": np.zeros((B, 7, 3), np.float32),
        "text": np.zeros((B, 5), np.int32),
    }
    targets = {
        "kind": np.zeros(B, np.int32),
        "size": np.zeros(B, np.float32),
        "words": np.zeros((B, 5), np.int32),
    }
    lengths = {m: np.full(B, inputs[m].shape[1], np.int32) for m in ("features", "sound", "text")}
    here, labeled = (dict.fromkeys(x, np.ones(B, bool)) for x in (inputs, targets))
    return Batch(inputs, here, lengths, targets, labeled)


def rows_of(model, example=None):
    rows, _ = summarize_model(model, batch() if example is None else example)
    assert len({r.part for r in rows}) == len(rows)
    return {r.part: r for r in rows}


def check_sums(model, rows, example):
    """The rows add up to the prediction, and this to the parameters and the jaxpr of the model."""
    shape = functools.partial(model.init, method="call_all_parts")
    params = jax.eval_shape(shape, jax.random.key(0), example)["params"]
    parts = [r for p, r in rows.items() if p != "prediction" and not p.startswith("auxiliary.")]
    whole = rows["prediction"]
    everything = count_flops(
        functools.partial(model.apply, train=False), {"params": params}, *example[:3]
    )
    assert whole.flops == round(everything / len(example.labeled["kind"]))
    assert abs(sum(r.flops for r in parts) - whole.flops) <= len(parts)  # each is rounded
    objectives = sum(r.parameters for p, r in rows.items() if p.startswith("auxiliary."))
    total = sum(p.size for p in jax.tree.leaves(params))
    assert sum(r.parameters for r in parts) == whole.parameters == total - objectives


def test_every_part_by_hand():
    model = Model(
        encoders={
            "features": Features(),
            "image": ConvEncoder((4,), kernel=3, width=8),
            "sound": RecurrentEncoder(elman(), width=6, bidirectional=True),
            "text": TextEncoder(10, 2, RecurrentEncoder(elman(), width=3, output="all")),
        },
        fusion=Sum(8),
        sharing=HardSharing((9,)),
        heads={
            "kind": Classification(4, hidden=(6,)),
            "size": Regression(mean=2.0),
            "words": SequenceLabeling(3, tokens="text"),
        },
    )
    rows = rows_of(model)
    # An Elman step: two products, a bias, their sum, tanh.
    elman_step = {w: lambda d, w=w: 2 * d * w + 2 * w * w + 3 * w for w in (3, 6)}
    # Conv 3x3, pooling to 9 places, bias, ReLU; dense, bias, ReLU. Comparisons are free.
    image = 36 * 2 * 9 * 2 * 4 + 2 * 9 * 4 + 2 * 36 * 8 + 2 * 8
    pooling = rows["encoders.image"].flops - image
    assert 0 <= pooling <= 3 * 9 * 4  # nine places and four filters have a maximum of four
    expected = {
        "features": (0, 0),
        "image": (9 * 2 * 4 + 4 + 36 * 8 + 8, image + pooling),
        "sound": (2 * (3 * 6 + 6 + 6 * 6), 2 * 7 * elman_step[6](3)),
        "text": (10 * 2 + 2 * 3 + 3 + 3 * 3, 5 * elman_step[3](2)),
    }
    for m, (parameters, operations) in expected.items():
        found = rows[f"encoders.{m}"]
        assert (found.parameters, found.flops) == (parameters, operations), m
    # Pooling n tokens takes n - 1 sums and a quotient; then a projection each, and three sums.
    tokens = {"features": (4, 3), "image": (1, 8), "sound": (1, 12), "text": (5, 3)}
    fusion = sum(n * d + 2 * d * 8 + 8 for n, d in tokens.values()) + 3 * 8
    expected = {
        "fusion": (sum(d * 8 + 8 for _, d in tokens.values()), fusion),
        "sharing": (8 * 9 + 9, 2 * 8 * 9 + 2 * 9),
        "heads.kind": (9 * 6 + 6 + 6 * 4 + 4, 2 * 9 * 6 + 2 * 6 + 2 * 6 * 4 + 4),
        "heads.size": (9 + 1, 2 * 9 + 1 + 2),
        "heads.words": (12 * 3 + 3, 5 * (2 * 12 * 3 + 3)),
    }
    for part, (parameters, operations) in expected.items():
        assert (rows[part].parameters, rows[part].flops) == (parameters, operations), part
    assert all(r.copies == 1 for r in rows.values())
    check_sums(model, rows, batch())


@pytest.mark.parametrize(
    "sharing, shared, own, parameters",
    [
        (MMoE(3, backbones=True), 3, 0, 2 * 3 * (3 * 8)),  # a gate of 3 a task, on 3 x 8
        (CrossStitch(backbones=True), 2, 0, 2 * 2),
        (TaskSpecific(), 0, 2, 0),
        (CGC(2, 1, backbones=True), 2, 2, 2 * 3 * (3 * 8)),  # 1 + 2 experts of 8
    ],
)
def test_copies_of_the_backbone_multiply_it(toy, sharing, shared, own, parameters):
    model, example = toy.model(Sum(8), sharing=sharing), toy.batch(B, 0)
    single = rows_of(toy.model(Sum(8), sharing=HardSharing()), example)
    rows = rows_of(model, example)
    for part in ("encoders.vector", "encoders.sequence", "fusion"):
        assert rows[part].copies == shared + own
        assert rows[part].parameters == (shared + own) * single[part].parameters
        assert rows[part].flops == (shared + own) * single[part].flops
        assert rows[part][3:5] == single[part][3:5]  # shapes
    assert rows["sharing"].parameters == parameters
    assert rows["heads.kind"] == single["heads.kind"]
    check_sums(model, rows, example)


def test_late_fusion_has_a_sharing_and_heads_for_each_branch(toy):
    model, example = toy.model(Late(6), missing="token"), toy.batch(B, 0)
    rows = rows_of(model, example)
    dense = 6 * 8 + 8
    assert (rows["sharing"].copies, rows["sharing"].parameters) == (2, 2 * dense)
    assert rows["sharing"].flops == 2 * (2 * 6 * 8 + 2 * 8)
    assert (rows["heads.kind"].copies, rows["heads.kind"].parameters) == (2, 2 * (8 * 4 + 4))
    assert rows["heads.kind"].flops == 2 * (2 * 8 * 4 + 4)
    # A token of each modality's width; weights times predictions, and their sum from 0 on.
    assert rows["model"].parameters == 8 + 5
    assert rows["model"].flops == 2 * 2 * (4 + 1)
    check_sums(model, rows, example)
    both = model.clone(sharing=CGC(1, 1, (7,), backbones=True))
    rows = rows_of(both, example)
    assert rows["encoders.vector"].copies == 3 and rows["sharing"].copies == 2
    assert rows["encoders.vector"].parameters == 3 * (6 * 8 + 8)
    check_sums(both, rows, example)


def test_objectives_stand_apart_from_the_prediction(toy):
    def magnitude(seen, predictions, batch, *, train, gather):
        return (seen.fused**2).sum(), jnp.ones(())

    model = toy.model(auxiliary={"align": InfoNCE(4), "small": magnitude})
    example = toy.batch(B, 0)
    rows = rows_of(model, example)
    plain = rows_of(toy.model(), example)
    assert list(rows) == [*plain, "auxiliary.align", "auxiliary.small"]
    assert all(rows[part] == plain[part] for part in plain)
    assert rows["auxiliary.align"].parameters == 4 * (8 + 5) + 1
    assert rows["auxiliary.small"].parameters == 0
    assert rows["auxiliary.small"].module == "magnitude"
    # Squares of 13 numbers, and their sum.
    assert rows["auxiliary.small"].flops == round((13 * B + 13 * B - 1) / B)
    # Two projections; cosines of all pairs, once each way.
    assert rows["auxiliary.align"].flops > 2 * 4 * (8 + 5) + 2 * (2 * B * 4)
    check_sums(model, rows, example)
    # Each of three backbones has its objective; their parameters are the same.
    copied = rows_of(model.clone(sharing=TaskSpecific()), example)["auxiliary.small"]
    assert copied.flops == round(2 * (26 * B - 1) / B)


@pytest.mark.filterwarnings("error")
def test_the_training_step_is_that_of_the_experiment(toy):
    e = toy.experiment(balancer=mgda())
    rows, notes = summarize_experiment(e)
    step = make_train_step(e.model, e.optimizer, e.balancer)
    start = functools.partial(init_state, e.model, e.optimizer, e.balancer)
    example = toy.batch(e.batch_size, 0)
    state = jax.eval_shape(start, example, jax.random.key(0))
    with pytest.warns(UserWarning, match="unknown length"):
        expected = count_flops(step, state, example)
    assert rows[-1].part == "training step"
    assert rows[-1].flops == round(expected / e.batch_size)
    assert rows[-1].parameters == rows[-2].parameters
    assert "divided by its 16 examples" in notes[1]
    assert notes[2] == "FLOPs: a loop of unknown length counts as one iteration."


def test_modules_are_shown_with_their_attributes():
    cell = RecurrentEncoder(gru(), 4)
    shown = "RecurrentEncoder(cell=gru, width=4, layers=1, output='last')"
    assert format_module(cell) == shown
    assert format_module(RecurrentEncoder(elman(jnp.sin), 4)) == shown.replace("gru", "elman")
    text = TextEncoder(10, 2, cell)
    assert format_module(text) == f"TextEncoder(vocabulary=10, embedding=2, encoder={shown})"
    assert format_module(nn.Sequential([nn.Dense(3), nn.relu])).startswith(
        "Sequential(layers=[Dense("
    )
    assert format_module(Concat()) == "Concat()"
    assert format_module(Regression(mean=2.0)) == ("Regression(mean=2.0, loss=squared_error)")
    assert format_module(count_flops) == "count_flops"


def test_shapes_are_those_of_one_example():
    def of(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    assert format_example_shapes(of(5, 28, 28, 1)) == "28×28×1"
    assert format_example_shapes(of(5)) == "number"
    assert format_example_shapes({"a": of(5, 3), "b": of(5, 4)}) == "a 3, b 4"
    assert format_example_shapes({"a": of(5, 3), "b": of(5, 3)}) == "3 each"
    assert format_example_shapes({"a": of(5, 3)}) == "3"


@pytest.mark.parametrize(
    "number, text",
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.000 k"),
        (12_346, "12.35 k"),
        (999_960, "1.000 M"),
        (4.5e9, "4.500 G"),
        (7.25e13, "72.50 T"),
    ],
)
def test_numbers_have_four_digits_and_a_unit(number, text):
    assert format_with_unit(number) == text


def test_the_table_in_markdown(toy):
    lines = format_summary_markdown(summarize_experiment(toy.experiment())).splitlines()
    assert lines[0] == "| part | module | input | output | parameters | FLOPs |"
    assert lines[1].count("|") == 7
    assert "| sharing | HardSharing(features=(8,)) | 13 | 8 each | 112 | 224 |" in lines
    assert "| fusion | Concat() | sequence 1×5, vector 1×8 | 13 | 0 | 13 |" in lines
    assert [line for line in lines if line.startswith("| prediction |  |  |  | 393 | ")]
    assert not lines[-2] and "FLOPs are those of a forward pass" in lines[-1]


def test_the_table_on_a_screen(toy, monkeypatch, capsys):
    monkeypatch.setattr(summary.sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    summary.print_summary(summarize_experiment(toy.experiment()), "all")
    text = capsys.readouterr().out
    for word in ("encoders.sequence", "sequence 1×5", "vector 1×8", "393", "forward pass"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 100


FILE = """
import sys
sys.path.insert(0, {tests!r})
from conftest import toy_dataset
import optax
from mmjax.config import auto_config, single_modality
from mmjax.encoders import MLPEncoder, RecurrentEncoder
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model

ARMS = single_modality


@auto_config
def experiment() -> Experiment:
    return Experiment(
        data=toy_dataset(),
        model=Model(
            encoders={{"vector": MLPEncoder((8,)), "sequence": RecurrentEncoder(width=5)}},
            fusion=Concat(),
            heads={{"kind": Classification(4)}},
        ),
        optimizer=optax.sgd(0.1),
        batch_size=16,
    )
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """An experiment's file in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    Path("mine.py").write_text(FILE.format(tests=str(Path(__file__).parent)))
    return "mine.py"


def test_the_command_prints_every_arm_and_does_nothing_else(mine, capsys):
    compiled = []
    listen = lambda event, duration, **_: compiled.append(event)  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        cli.script(["run", mine, "--summary", "--set", "model.sharing=PLE(2, 1, 1, (6,))"])
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    # The training step of each arm, and three small operations per arm, such as making keys.
    assert len([event for event in compiled if "backend_compile" in event]) <= 12
    assert {p.name for p in Path().iterdir()} <= {"mine.py", "__pycache__"}
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        *("### all", "### Memory of all"),
        *("### vector", "### Memory of vector"),
        *("### sequence", "### Memory of sequence"),
    ]
    assert text.count("PLE(levels=2, shared=1, own=1, features=(6,))") == 3
    assert text.count("| training step |") == 3


def test_the_command_refuses_what_does_not_fit(mine, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.script(["run", mine, "--summary", "--set", "model.fusion=CrossModal(8)"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: arm all: model.fusion (CrossModal) gets sequence float32[16 1 5]"
    )
