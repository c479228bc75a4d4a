"""ONNX Runtime computes what the model predicts."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Primitive, jaxpr_as_fun

from mmjax import encoders, fusion, heads, sharing
from mmjax.data.dataset import Modality, Preparation, Task
from mmjax.data.spec import Spec
from mmjax.export.onnx_artifact import run_onnx, serialize_for_onnx
from mmjax.export.onnx_rewrites import rewrite_for_onnx
from mmjax.export.signature import make_exported_function, make_random_arrays
from mmjax.model import Model
from mmjax.pretrained import backbones
from mmjax.runs.trained import Trained

MODALITIES = {
    "image": (Modality((8, 8, 1)), "float32"),
    "photo": (Modality((8, 8, 3)), "float32"),
    "speech": (Modality((12, 6), True), "float32"),
    "text": (Modality((9,), True, tuple(map(str, range(60)))), "int32"),
}
TASKS = {
    "digit": (heads.Classification(10), Task("classification", tuple("0123456789"))),
    "rate": (heads.Regression(mean=220.0, scale=58.0), Task("regression")),
}


def make_main_job():
    """The parts of experiments/polyglot_digits.py, smaller."""
    gru = encoders.gru()
    return {
        "image": encoders.ConvEncoder(features=(4, 8)),
        "speech": encoders.RecurrentEncoder(cell=gru, width=8, bidirectional=True),
        "text": encoders.TextEncoder(encoder=encoders.RecurrentEncoder(cell=gru, width=8)),
    }, fusion.Concat()


def make_cnn_lstm():
    """The parts of experiments/cnn_lstm.py, smaller."""
    lstm = encoders.lstm()
    return {
        "image": encoders.ConvEncoder(features=(4, 8)),
        "speech": encoders.RecurrentEncoder(cell=lstm, width=8, layers=2),
    }, fusion.Concat()


def make_transformer():
    return {
        "image": encoders.ConvEncoder(features=(4, 8)),
        "speech": encoders.TransformerEncoder(width=8, layers=1, heads=2, output="all"),
    }, fusion.EarlyTransformer(width=8, layers=1, heads=2)


def make_latents():
    return {
        "image": encoders.ConvEncoder(features=(4, 8)),
        "speech": encoders.RecurrentEncoder(cell=encoders.gru(), width=8, output="all"),
    }, fusion.HEALNet(width=8, latents=3, layers=2, heads=2)


def make_pretrained():
    return {
        "photo": backbones.ViT(width=8, layers=2, heads=2, hidden=16, patch=4, image=8),
        "text": backbones.BERT(vocabulary=60, width=8, layers=2, heads=2, hidden=16, positions=16),
    }, fusion.Gated(width=8)


def make_copies_with_stand_ins():
    """Learned tokens for missing modalities, of one token each, in copies of the backbone."""
    parts = {
        "image": encoders.ConvEncoder(features=(4,)),
        "speech": encoders.RecurrentEncoder(cell=encoders.gru(), width=4),
    }
    copies = sharing.DSelectK(2, 2, backbones=True)
    return parts, fusion.Tensor(2), {"sharing": copies, "missing": "token"}


MODELS = {
    "main job": make_main_job,
    "cnn_lstm": make_cnn_lstm,
    "transformer": make_transformer,
    "latents": make_latents,
    "pretrained": make_pretrained,
    "copies with stand-ins": make_copies_with_stand_ins,
}


def make_model(parts, combine, options=None, *, seeds=(0,)):
    """Makes a trained model with initial parameters."""
    model = Model(
        encoders=parts,
        fusion=combine,
        heads={name: head for name, (head, _) in TASKS.items()},
        **(options or {"sharing": sharing.HardSharing((8,))}),
    )
    spec = Spec(
        "digits",
        {m: MODALITIES[m][0] for m in parts},
        {name: task for name, (_, task) in TASKS.items()},
        {m: Preparation(dtype=MODALITIES[m][1]) for m in parts},
    )
    inputs, present, lengths = {}, {}, {}
    for m, modality in spec.modalities.items():
        inputs[m] = np.ones((2, *modality.shape), MODALITIES[m][1])
        present[m] = np.ones(2, bool)
        if modality.sequence:
            lengths[m] = np.full(2, 3, np.int32)
    members = []
    for seed in seeds:
        members.append(model.init(jax.random.key(seed), inputs, present, lengths, train=False))
    variables = jax.tree.map(lambda *x: np.stack(x), *members)
    if len(seeds) == 1:
        variables = jax.tree.map(lambda x: x[0], variables)
    return Trained(model, spec, seeds, variables, "float32", 32, lambda: None)


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")  # about what jax2onnx finds deprecated in others
@pytest.mark.parametrize(
    ("name", "seeds"), [*((name, (0,)) for name in MODELS), ("main job", (0, 1, 2))]
)
def test_onnx_runtime_computes_the_predictions(name, seeds):
    """Any batch size, missing modalities, all lengths; of an ensemble, its mean."""
    trained = make_model(*MODELS[name](), seeds=seeds)
    content = serialize_for_onnx(trained)
    predict = make_exported_function(trained)
    for count in (1, 6):
        arrays = make_random_arrays(trained.spec, count)
        results, expected = run_onnx(content, arrays), jax.device_get(predict(arrays))
        assert results.keys() == expected.keys()
        for output, values in expected.items():
            scale = 58.0 if output == "rate.values" else 1.0  # in the terms of the head
            np.testing.assert_allclose(results[output] / scale, values / scale, atol=1e-4)


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")
def test_what_onnx_cannot_express_is_refused_by_name():
    odd = Primitive("odd")
    odd.def_impl(lambda x: x)
    odd.def_abstract_eval(lambda x: x)

    class Odd(nn.Module):
        """An encoder with a primitive that jax2onnx does not know."""

        @nn.compact
        def __call__(self, x, length=None, *, train):
            return encoders.MLPEncoder((4,))(odd.bind(x), length, train=train)

    trained = make_model({"image": Odd()}, fusion.Concat())
    with pytest.raises(ValueError, match=r"primitive 'odd' of .*encoders_image"):
        serialize_for_onnx(trained)


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")
def test_a_wrong_shape_is_refused_by_name():
    trained = make_model({"image": encoders.MLPEncoder((4,))}, fusion.Concat())
    arrays = make_random_arrays(trained.spec, 2)
    content = serialize_for_onnx(trained)
    with pytest.raises(ValueError, match="image"):
        run_onnx(content, arrays | {"image": np.zeros((2, 7, 8, 1), np.float32)})


def test_rewriting_keeps_the_values():
    """Reversed scans, batch-last convolutions, pools, stacks, calls, empty arrays, reshapes."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 5, 6, 3)), rng.normal(size=(3, 2, 2, 4))
    x, kernel = x.astype(np.float32), kernel.astype(np.float32)

    def compute(x, kernel):
        layout = ("CHWN", "HWIO", "CHWN")
        y = lax.conv_general_dilated(x, kernel, (1, 2), "SAME", dimension_numbers=layout)
        last, all_steps = lax.scan(
            lambda c, row: (c + row.sum(), row * c), 0.0, y.swapaxes(0, 1), reverse=True
        )
        first, second = jax.numpy.unstack(
            jax.jit(jax.nn.relu)(jax.numpy.stack([y, 2 * y], 1)), axis=1
        )
        largest = nn.max_pool(x, (3, 2), (2, 2), [(1, 1), (0, 1)])
        none = x[:, 5:]
        longer = lax.concatenate([none, x, none, x], 1)
        nothing = lax.concatenate([none, none], 1)
        pooled = nn.avg_pool(x, (2, 3), (1, 2))
        turned = lax.reshape(x, (4, 45), (3, 1, 0, 2))
        return last, all_steps, first - second, largest, pooled, longer, nothing, turned

    traced = jax.make_jaxpr(compute)(x, kernel)
    rewritten = rewrite_for_onnx(traced)
    names = {eqn.primitive.name for eqn in rewritten.jaxpr.eqns}
    assert not names & {"stack", "unstack", "jit", "pjit", "custom_jvp_call"}
    assert not names & {"reduce_window_max", "reduce_window_sum"}
    reshapes = [eqn for eqn in rewritten.jaxpr.eqns if eqn.primitive.name == "reshape"]
    assert reshapes and all(eqn.params["dimensions"] is None for eqn in reshapes)
    for value, expected in zip(jaxpr_as_fun(rewritten)(x, kernel), compute(x, kernel), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)
