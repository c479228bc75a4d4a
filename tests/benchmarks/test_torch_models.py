"""Tests that PyTorch's models are mmjax's: equal parameter counts and equal predictions."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from versus import torch_balance, torch_models, torch_steps  # noqa: E402
from versus.case import make_random_batches  # noqa: E402
from versus.cases import av_mnist, cross_modal, lenet, polyglot, textbook  # noqa: E402

from mmjax.data.dataset import Dataset  # noqa: E402

pytestmark = pytest.mark.reference
LSTM_BIASES = 2 * 4 * 64  # PyTorch has two biases per layer, whose sum is the one of mmjax


def init_mmjax_params(model, inputs, tasks):
    batch = make_random_batches(inputs, tasks, 2, count=1)[0]
    return jax.eval_shape(lambda: model.init(jax.random.key(0), batch, method="call_all_parts"))[
        "params"
    ]


def count_mmjax(params):
    return sum(x.size for x in jax.tree.leaves(params))


def count_torch(net):
    return sum(p.numel() for p in net.parameters())


def test_textbook():
    expected = init_mmjax_params(textbook.make_model(), textbook.INPUTS, textbook.TASKS)
    assert count_torch(torch_models.Textbook()) == count_mmjax(expected) + LSTM_BIASES


@pytest.mark.parametrize("tasks", [2, 8])
def test_lenet(tasks):
    expected = init_mmjax_params(
        lenet.make_model(tasks), {"image": (28, 28, 1)}, lenet.make_task_names(tasks)
    )
    assert count_torch(torch_models.LeNet(lenet.make_task_names(tasks))) == count_mmjax(expected)


def test_late_fusion():
    expected = init_mmjax_params(av_mnist.make_model(), av_mnist.INPUTS, ("digit",))
    assert count_torch(torch_models.LateFusion(av_mnist.BLOCKS)) == count_mmjax(expected)


def test_cross_modal():
    net = torch_models.CrossModal(tuple(cross_modal.INPUTS), width=64, layers=2, heads=4)
    assert count_torch(net) == count_mmjax(
        init_mmjax_params(cross_modal.make_model(), cross_modal.INPUTS, ("class",))
    )


def test_polyglot(monkeypatch):
    """Uses the experiment's own model, on noise instead of its data."""
    file = polyglot.load_experiment_file("polyglot_digits")
    monkeypatch.setattr(file, "polyglot_digits", lambda: Dataset("none", {}, {}, {}))
    model = file.experiment().model
    shapes = {"image": (8, 8, 1), "speech": (48, 24), "text": (12,)}
    batch = make_random_batches(shapes, ("digit", "language", "rate"), 2, count=1)[0]
    text = np.zeros((2, 12), np.int32)
    lengths = {"speech": np.array([48, 5]), "text": np.array([12, 3])}
    batch = batch._replace(inputs=batch.inputs | {"text": text}, lengths=lengths)
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), batch, method="call_all_parts")
    )
    assert count_torch(torch_models.Polyglot()) == count_mmjax(variables["params"])


def test_lenet_predicts_the_same():
    names = lenet.make_task_names(2)
    model = lenet.make_model(2)
    (batch,) = make_random_batches({"image": (28, 28, 1)}, names, 3, count=1)
    params = model.init(jax.random.key(0), batch, method="call_all_parts")["params"]
    net = torch_models.LeNet(names).to(torch_steps.DEVICE)
    encoder = params["encoders_image"]
    copy_conv(net.trunk[0], encoder["conv_0"])
    copy_conv(net.trunk[3], encoder["conv_1"])
    copy_dense(net.trunk[7], encoder["dense"]["kernel"], encoder["dense"])
    for name in names:
        head = params[f"heads_{name}"]
        first, last = (head[key] for key in sorted(head))
        copy_dense(net.heads[name][0], first["kernel"], first)
        copy_dense(net.heads[name][2], last["kernel"], last)
    expected = model.apply({"params": params}, *batch[:3], train=False)
    tensors = torch_steps.convert_to_tensors([batch])[0]
    for name, prediction in net(tensors).items():
        np.testing.assert_allclose(prediction.detach().cpu(), expected[name], rtol=1e-4, atol=1e-5)


def test_textbook_predicts_the_same():
    model = textbook.make_model()
    batch = make_random_batches(textbook.INPUTS, textbook.TASKS, 3, count=1)[0]
    params = model.init(jax.random.key(0), batch, method="call_all_parts")["params"]
    net = torch_models.Textbook().to(torch_steps.DEVICE)
    for i in range(2):
        copy_conv(net.image[3 * i], params["encoders_image"][f"conv_{i}"])
        layer = params["encoders_speech"][f"layer_{i}_forward"]
        for name, value in (
            ("weight_ih", layer["kernel"].T),
            ("weight_hh", layer["recurrent_kernel"].T),
            ("bias_ih", layer["bias"]),
            ("bias_hh", np.zeros(256, np.float32)),
        ):
            getattr(net.speech, f"{name}_l{i}").data = torch.tensor(np.asarray(value))
    dense = params["sharing"]["dense_0"]
    copy_dense(net.dense, dense["kernel"], dense)
    for task in textbook.TASKS:
        (head,) = params[f"heads_{task}"].values()
        copy_dense(net.heads[task], head["kernel"], head)
    expected = model.apply({"params": params}, *batch[:3], train=False)
    for task, prediction in net(torch_steps.convert_to_tensors([batch])[0]).items():
        np.testing.assert_allclose(prediction.detach().cpu(), expected[task], rtol=1e-4, atol=1e-5)


def copy_conv(conv, params):
    conv.weight.data = torch.tensor(np.asarray(params["kernel"]).transpose(3, 2, 0, 1))
    conv.bias.data = torch.tensor(np.asarray(params["bias"]))


def copy_dense(dense, kernel, params):
    dense.weight.data = torch.tensor(np.asarray(kernel).T)
    dense.bias.data = torch.tensor(np.asarray(params["bias"]))


@pytest.mark.parametrize("name", ["pcgrad", "mgda", "cagrad", "uniform"])
def test_a_balanced_step_updates_every_parameter(name):
    names = lenet.make_task_names(3)
    net = torch_models.LeNet(names)
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    step = torch_balance.BalancedStep(net, optimizer, getattr(torch_balance, name))
    batches = make_random_batches({"image": (28, 28, 1)}, names, 4, count=1)
    step(torch_steps.convert_to_tensors(batches)[0])
    assert all((p != q).any() for p, q in zip(net.parameters(), before, strict=True))


def test_mgda_in_closed_form_is_the_point_of_least_norm():
    rows = np.random.default_rng(0).normal(size=(2, 5))
    weights = torch_balance.mgda(rows @ rows.T)
    shares = np.linspace(0, 1, 1001)
    norms = [np.linalg.norm(s * rows[0] + (1 - s) * rows[1]) for s in shares]
    assert np.linalg.norm(weights @ rows) <= min(norms) + 1e-6
