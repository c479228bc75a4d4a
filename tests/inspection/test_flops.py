"""Floating-point operations against what one counts by hand."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen as nn

from mmjax import balance
from mmjax.encoders import RecurrentEncoder, gru, lstm
from mmjax.inspection import flops as counting
from mmjax.inspection.flops import count_flops, count_flops_by_scope
from mmjax.kernels.attention import Attention
from mmjax.kernels.conv2d import conv2d
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import Tokens


def of(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def of_module(module, *args, **kwargs):
    """The operations of a call of a module, without its initialisation."""
    params = jax.eval_shape(lambda *a: module.init(jax.random.key(0), *a, **kwargs), *args)
    return count_flops(lambda p, *a: module.apply(p, *a, **kwargs), params, *args)


@pytest.mark.parametrize(
    "spec, shapes, expected",
    [
        ("mk,kn->mn", [(3, 4), (4, 5)], 2 * 3 * 4 * 5),
        ("bmk,bkn->bmn", [(7, 3, 4), (7, 4, 5)], 2 * 7 * 3 * 4 * 5),
        ("i,i->", [(9,), (9,)], 2 * 9),
        ("abc,dbe->adce", [(2, 3, 4), (5, 3, 6)], 2 * 2 * 3 * 4 * 5 * 6),
        ("i,j->ij", [(4,), (5,)], 2 * 4 * 5),
    ],
)
def test_products_of_matrices(spec, shapes, expected):
    assert count_flops(lambda a, b: jnp.einsum(spec, a, b), *(of(*s) for s in shapes)) == expected


def test_a_dense_layer_and_its_gradient():
    """Forward 2bio + bo; backward twice the products, and the sum of the bias over the batch."""
    b, i, o = 6, 5, 3
    layer = nn.Dense(o)
    assert of_module(layer, of(b, i)) == 2 * b * i * o + b * o

    def loss(kernel, bias, x):
        return (x @ kernel + bias[None]).sum()

    gradient = jax.grad(loss, argnums=(0, 1, 2))
    # The value is not needed, and so not counted.
    assert count_flops(gradient, of(i, o), of(o), of(b, i)) == 2 * (2 * b * i * o) + (b - 1) * o


@pytest.mark.parametrize(
    "stride, padding, places", [(1, "SAME", 81), (1, "VALID", 49), (2, "SAME", 25), (3, "VALID", 9)]
)
def test_a_convolution_counts_each_tap_at_each_place_backward_too(stride, padding, places):
    b, channels, filters, layout = 2, 3, 5, ("NHWC", "HWIO", "NHWC")

    def conv(x, kernel):
        steps = (stride, stride)
        return jax.lax.conv_general_dilated(x, kernel, steps, padding, dimension_numbers=layout)

    expected = 2 * b * places * 9 * channels * filters
    arguments = of(b, 9, 9, channels), of(3, 3, channels, filters)
    made = jax.eval_shape(conv, *arguments)
    assert count_flops(conv, *arguments) == expected
    for i in (0, 1):
        assert (
            count_flops(lambda x, k, d, i=i: jax.vjp(conv, x, k)[1](d)[i], *arguments, made)
            == expected
        )
    kernels = of(4, 3, 3, channels, filters)
    assert count_flops(jax.vmap(conv, (None, 0)), arguments[0], kernels) == 4 * expected


def test_grouped_and_transposed_convolutions():
    """A filter sees the channels of its group; every pixel that goes in meets every tap once."""
    x = of(2, 4, 4, 6)
    grouped = nn.Conv(8, (3, 3), feature_group_count=2, use_bias=False)
    assert of_module(grouped, x) == 2 * 2 * 16 * 9 * (6 // 2) * 8
    assert of_module(nn.ConvTranspose(8, (3, 3), strides=(2, 2), use_bias=False), x) == (
        2 * 2 * 16 * 9 * 6 * 8
    )


def test_a_choice_by_platform_counts_once():
    """Patches times a matrix on one platform, XLA's convolution on the others: the same."""
    assert count_flops(conv2d, of(3, 8, 8, 2), of(3, 3, 3, 5)) == 2 * 2 * 64 * 27 * 5


def test_a_recurrence_counts_every_step_of_time():
    """LSTM: both products for 4 gates, bias and their sum; 5 functions, 4 products and sums."""
    b, t, d, w = 2, 11, 3, 5
    x = of(b, t, d)
    gates = 2 * d * 4 * w + 4 * w + 2 * w * 4 * w + 4 * w
    assert of_module(RecurrentEncoder(lstm(), w), x, train=False) == b * t * (gates + 5 * w + 4 * w)
    # GRU: a bias of its own for the recurrent product; r and z, n = tanh(.. + r ..), then the mean.
    gates = 2 * d * 3 * w + 3 * w + 2 * w * 3 * w + 3 * w
    step = 2 * 2 * w + 3 * w + 4 * w
    assert of_module(RecurrentEncoder(gru(), w), x, train=False) == b * t * (gates + step)
    longer = of_module(RecurrentEncoder(lstm(), w), of(b, 7 * t, d), train=False)
    assert longer == 7 * of_module(RecurrentEncoder(lstm(), w), x, train=False)


def test_attention():
    """Four projections; scores and their sums 2nkd each; the scale, and softmax over the keys."""
    b, q, k, d, e, heads = 2, 3, 7, 8, 6, 4
    context = Tokens(of(b, k, e), of(b, k, dtype=bool))
    projections = 2 * b * (q * d * d + 2 * k * e * d + q * d * d)
    products = 2 * (2 * b * q * k * d)
    scores = b * heads * q * k
    # Less the maximum (which is at least minus infinity), exp, over the sum of k terms.
    softmax = scores + scores + scores + (scores - b * heads * q) + scores
    scale = b * q * d + 1
    found = of_module(Attention(heads), of(b, q, d), context)
    assert found == projections + products + scale + softmax


def test_arithmetic_counts_one_an_element_and_a_sum_one_less_than_there_are():
    x = of(4, 5)
    assert count_flops(lambda x: jnp.exp(x) * x + 2, x) == 3 * 20
    assert count_flops(lambda x: x.sum(), x) == 19
    assert count_flops(lambda x: x.max(axis=0), x) == 15
    assert count_flops(lambda x: nn.relu(x), x) == 20
    # tanh, 1 + tanh, 1 - tanh, their product and that with what came back: in every version of JAX
    assert count_flops(lambda x, d: jax.vjp(jnp.tanh, x)[1](d), x, x) == 5 * 20
    assert count_flops(lambda x: jnp.polyval(jnp.arange(4.0), x), x) in (2 * 3 * 20, 2 * 4 * 20)
    assert count_flops(lambda x: jnp.cumsum(x, axis=0), x) == 20
    assert count_flops(lambda x: x.at[jnp.array([0, 1, 0])].add(1.0), x) == 3 * 5
    assert count_flops(lambda x: nn.max_pool(x[None, :, :, None], (2, 2), (2, 2)), x) == 2 * 2 * 3


def test_what_is_no_arithmetic_of_floating_point_numbers_is_free():
    x, i = of(4, 5), of(4, 5, dtype=jnp.int32)
    assert count_flops(lambda x, i: jnp.where(x > 0, x.T.reshape(4, 5), 0), x, i) == 0
    assert count_flops(lambda x, i: (i @ i.T) // 2 + x.argmax(), x, i) == 0
    assert (
        count_flops(lambda x, i: jnp.take_along_axis(x, i, axis=0).astype(jnp.bfloat16), x, i) == 0
    )
    assert count_flops(lambda x, i: jax.random.bits(jax.random.key(0), (9,)), x, i) == 0


def test_what_the_result_does_not_need_is_free():
    def function(a, b):
        unused = a @ b
        return (a * 2, unused.sum())[0]

    assert count_flops(function, of(3, 4), of(4, 5)) == 12


def test_loops_and_branches():
    square = of(4, 4)
    product = 2 * 4**3

    def loop(x):
        return jax.lax.fori_loop(
            0, 6, lambda _, y: jax.lax.fori_loop(0, 3, lambda _, z: z @ x, y), x
        )

    assert count_flops(loop, square) == 18 * product
    assert count_flops(lambda x: jax.lax.map(lambda r: r @ x, x), square) == product

    def branches(p, x):
        return jax.lax.cond(p, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert count_flops(branches, of(dtype=bool), square) == 2 * product
    # Under vmap both branches run.
    assert count_flops(jax.vmap(branches), of(5, dtype=bool), of(5, 4, 4)) == 5 * 3 * product


@pytest.mark.parametrize("lift", [jax.jit, jax.checkpoint, nn.jit, nn.remat])
def test_calls_are_followed(lift):
    if lift in (nn.jit, nn.remat):
        module = lift(nn.Dense)(3, use_bias=False)
        assert of_module(module, of(2, 5)) == 2 * 2 * 5 * 3
        return
    assert count_flops(lift(lambda x: x @ x), of(4, 4)) == 2 * 4**3


def test_functions_with_derivatives_of_their_own_are_followed():
    @jax.custom_vjp
    def cube(x):
        return x @ x @ x

    cube.defvjp(lambda x: (cube(x), x), lambda x, g: (g @ x,))
    assert count_flops(cube, of(4, 4)) == 2 * (2 * 4**3)
    # The backward pass is the one that is given; the value is not needed.
    pull = lambda x, g: jax.vjp(cube, x)[1](g)  # noqa: E731
    assert count_flops(pull, of(4, 4), of(4, 4)) == 2 * 4**3


def test_rematerialisation_pays_for_the_forward_pass_again():
    def through(x, w, v):
        return (jnp.sin(x @ w) @ v).sum()

    arguments = of(4, 4), of(4, 4), of(4, 4)
    plain, again = (
        count_flops(jax.value_and_grad(f, argnums=(1, 2)), *arguments)
        for f in (through, jax.checkpoint(through))
    )
    assert again - plain == 2 * 4**3 + 16  # x @ w and its sine; the rest has no derivative of them


def test_a_loop_of_unknown_length_counts_once_and_says_so():
    def halve(x):
        return jax.lax.while_loop(lambda y: y[0, 0] > 1, lambda y: y @ y, x)

    with pytest.warns(UserWarning, match="a loop of unknown length counts as one iteration"):
        assert count_flops(halve, of(4, 4)) == 2 * 4**3


def test_an_operation_without_a_rule_is_named():
    with pytest.warns(UserWarning, match="eigh has no rule and counts nothing"):
        assert count_flops(lambda x: jnp.linalg.eigh(x, symmetrize_input=False), of(4, 4)) == 0


def test_scopes_add_up_to_the_whole():
    def row(r, x):
        with jax.named_scope("first"):
            return r @ x

    def function(x):
        y = jax.vmap(row, (0, None))(x, x)
        with jax.named_scope("second"):
            return jnp.sin(y) + 1

    parts = count_flops_by_scope(function, of(4, 4))
    assert sum(parts.values()) == count_flops(function, of(4, 4))
    for name, expected in (("first", 2 * 4**3), ("second", 2 * 16)):
        assert sum(n for scope, n in parts.items() if name in scope) == expected


@pytest.mark.parametrize("seeds", [None, 3])
@pytest.mark.parametrize("name", ["equal", "mgda"])
@pytest.mark.filterwarnings("ignore:FLOPs")
def test_the_products_of_a_train_step(toy, monkeypatch, name, seeds):
    """Forward once, then for the weights and for what comes before them, but not for the inputs.

    A gradient method goes backward through what tasks share once a task; then the rows [t p] of the
    Jacobian meet each other, and the weights.
    """
    for rules in ("ELEMENTWISE", "REDUCTIONS", "SCATTERS"):
        monkeypatch.setattr(counting, rules, frozenset())
    model, optimizer, balancer, b = toy.model(), optax.sgd(0.1), getattr(balance, name)(), 16
    batch = jax.tree.map(jnp.asarray, toy.batch(b, 0))
    make = functools.partial(init_state, model, optimizer, balancer, batch)
    step = make_train_step(model, optimizer, balancer)
    if seeds:
        make, step = jax.vmap(make), jax.vmap(step, (0, None))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), seeds or ()))
    found = count_flops(step, jax.eval_shape(make, keys), batch)
    vector, inputs, recurrent, trunk, heads = 6 * 8, 7 * 3 * 20, 7 * 5 * 20, 13 * 8, 8 * (4 + 1)
    forward = vector + inputs + recurrent + trunk + heads
    shared = vector + inputs + 2 * recurrent + 2 * trunk
    weighted = 2 * 2  # the losses, for the log
    if name == "equal":
        assert found == (seeds or 1) * (2 * b * (forward + 2 * heads + shared) + weighted)
        return
    p = (6 + 1) * 8 + (3 + 5 + 1) * 20 + (13 + 1) * 8
    rows = 2 * 2 * 2 * p + 2 * 2 * p
    known = 2 * b * (forward + 2 * heads + 2 * shared) + weighted + rows
    # MGDA's own search, on a 2x2 matrix, is all the rest.
    assert known < found / (seeds or 1) < known + 50
