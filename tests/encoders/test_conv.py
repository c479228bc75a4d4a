import functools
import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import ConvEncoder, MLPEncoder
from mmjax.kernels import conv2d as conv2d_file
from mmjax.kernels import conv2d_in_blocks, conv_layers
from mmjax.kernels.batch_last import to_batch_first, to_batch_last
from mmjax.kernels.group_norm import NormParameters, group_norm
from mmjax.kernels.max import max_pool_2x2 as max_pool_batch_last
from tests.tolerance import assert_equal_sums, assert_within, bound_difference, bound_sum_error


def loop_conv2d(x, kernel):
    """SAME cross-correlation, one output number at a time, in float64."""
    rows, columns, _, features = kernel.shape
    b, h, w, _ = x.shape
    top, left = (rows - 1) // 2, (columns - 1) // 2
    out = np.zeros((b, h, w, features))
    for n, i, j, o in np.ndindex(out.shape):
        for k, m in np.ndindex(rows, columns):
            p, q = i + k - top, j + m - left
            if 0 <= p < h and 0 <= q < w:
                out[n, i, j, o] += x[n, p, q].astype(np.float64) @ kernel[k, m, :, o]
    return out


def loop_max_pool(x):
    b, h, w, c = x.shape
    out = np.zeros((b, h // 2, w // 2, c))
    for n, i, j, o in np.ndindex(out.shape):
        out[n, i, j, o] = x[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, o].max()
    return out


def images(function):
    """The function on images [b h w c] in place of [c h w b]."""

    @functools.wraps(function)
    def of_images(x, *others):
        return to_batch_first(function(to_batch_last(x), *others))

    return of_images


conv2d = images(conv2d_file.conv2d)
patches_conv2d = images(conv2d_file.conv2d_by_patches)
chunk_conv2d = images(
    lambda x, kernel, padding="SAME": conv2d_file.conv2d_recomputing_patches(x, kernel, padding)
)
native_conv2d = images(conv2d_file.plain_conv2d)
max_pool = images(max_pool_batch_last)


@pytest.fixture
def set_cache_bytes(monkeypatch):
    """set_cache_bytes(n): as if the processor had a cache of that size."""

    def set_bytes(size):
        monkeypatch.setattr(conv2d_file, "CACHE_BYTES", size)
        jax.clear_caches()  # a checkpoint's trace does not know of the other size

    yield set_bytes
    jax.clear_caches()


def random(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def bound_conv_errors(x, kernel, *, conv=native_conv2d, padding="SAME", cotangent_error=0):
    """Bounds the errors of a convolution and of its gradients along a cotangent of at most 1.

    Args:
      x: images.
      kernel: the kernel.
      conv: the convolution, for the layout.
      padding: the padding.
      cotangent_error: multiple of the values' error by which the cotangent is off.

    Returns:
      (bound of the values, (bound of the images' gradient, bound of the kernel's)).
    """
    magnitude, ones, passed_on = pull_magnitudes(x, kernel, conv, padding)
    *taps, channels, filters = kernel.shape
    products = math.prod(taps) * channels + 1
    terms = math.prod(taps) * filters + 1, magnitude.size // filters + 1
    return bound_sum_error(products, magnitude), tuple(
        bound_sum_error(n, total) + cotangent_error * bound_sum_error(products, e)
        for n, total, e in zip(terms, ones, passed_on, strict=True)
    )


@functools.partial(jax.jit, static_argnums=(2, 3))
def pull_magnitudes(x, kernel, conv, padding):
    """Sums of absolute products, and their gradients along ones and along themselves."""
    magnitude, pull = jax.vjp(lambda x, k: conv(x, k, padding), jnp.abs(x), jnp.abs(kernel))
    return magnitude, pull(jnp.ones_like(magnitude)), pull(magnitude)


@pytest.mark.parametrize("conv", [conv2d, patches_conv2d, chunk_conv2d, native_conv2d])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (5, 2)])
def test_convolution_is_the_naive_sum(conv, size):
    x, kernel = random(0, 2, 5, 4, 3), random(1, *size, 3, 2)
    error, _ = bound_conv_errors(x, kernel)
    assert_within(conv(x, kernel), loop_conv2d(*map(np.asarray, (x, kernel))), error)


@pytest.mark.parametrize("conv", [conv2d, patches_conv2d, chunk_conv2d, native_conv2d])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (4, 1), (5, 4)])
def test_without_padding_the_inner_part_is_left(conv, size):
    """Where the whole kernel lies on the image, zeros around it make no difference."""
    x, kernel = random(0, 2, 5, 4, 3), random(1, *size, 3, 2)
    top, left = ((side - 1) // 2 for side in size)
    height, width = 5 - size[0] + 1, 4 - size[1] + 1
    whole = loop_conv2d(*map(np.asarray, (x, kernel)))
    inner = whole[:, top : top + height, left : left + width]
    error, _ = bound_conv_errors(x, kernel, padding="VALID")
    assert_within(conv(x, kernel, "VALID"), inner, error)


def test_gradients_are_those_of_xla_under_jit_scan_and_vmap():
    x, kernels = random(0, 2, 6, 5, 3), random(1, 3, 3, 3, 3, 4)

    def descend(conv, kernel):
        def loss(kernel, x):
            return jnp.sin(conv(x, kernel)).sum()

        def step(kernel, _):
            gradient, of_x = jax.grad(loss, argnums=(0, 1))(kernel, x)
            return kernel - 0.01 * gradient, of_x

        return jax.lax.scan(step, kernel, None, length=3)

    ours = jax.jit(jax.vmap(lambda k: descend(conv2d, k)))(kernels)
    for i, kernel in enumerate(kernels):
        expected = descend(native_conv2d, kernel)
        for got, want in zip(ours, expected, strict=True):
            assert_equal_sums(got[i], want, terms=x.size)


def test_forward_over_reverse_is_a_finite_difference_of_gradients():
    x, kernel, direction = random(0, 1, 4, 4, 1), random(1, 3, 3, 1, 2), random(2, 3, 3, 1, 2)
    gradient = jax.grad(lambda kernel: jnp.sin(conv2d(x, kernel)).sum())
    _, product = jax.jvp(gradient, (kernel,), (direction,))
    ahead, behind = gradient(kernel + 1e-2 * direction), gradient(kernel - 1e-2 * direction)
    np.testing.assert_allclose(product, (ahead - behind) / 2e-2, atol=1e-2)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the CPU's branch")
def test_one_branch_is_left_in_the_program():
    program = jax.jit(conv2d).lower(random(0, 1, 4, 4, 1), random(1, 3, 3, 1, 2))
    text = program.compile().as_text()
    assert " dot(" in text or "__onednn" in text or "custom-call" in text
    assert "convolution(" not in text and "conditional(" not in text


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (1, 5, 7, 2), (1, 2, 3, 1)])
def test_max_pool_is_the_naive_maximum(shape):
    x = random(0, *shape)
    np.testing.assert_array_equal(max_pool(x), loop_max_pool(np.asarray(x)))


@pytest.mark.parametrize("side, width", [(28, 7 * 7 * 64), (8, 2 * 2 * 64), (9, 2 * 2 * 64)])
def test_the_textbook_network(side, width):
    x = random(0, 2, side, side, 1)
    values, variables = ConvEncoder().init_with_output(jax.random.key(0), x, train=False)
    for name in ("conv_0", "conv_1"):
        layer = variables["params"][name]
        y = np.asarray(native_conv2d(x, layer["kernel"])) + np.asarray(layer["bias"])
        x = jnp.asarray(loop_max_pool(np.maximum(y, 0)), jnp.float32)
    assert values.values.shape == (2, 1, width)
    channel_by_channel = x.transpose(0, 3, 1, 2).reshape(2, -1)
    assert_equal_sums(values.values[:, 0], channel_by_channel, terms=2 * 9 * 32)


def as_plain_layers(encoder, x):
    """Compares values and gradients, of two seeds at once, with those of Flax's layers.

    Returns:
      The encoder's program as text.
    """
    seeds = jax.random.split(jax.random.key(0), 2)
    params = jax.vmap(lambda key: encoder.init(key, x, train=True)["params"])(seeds)
    biases = {"bias": 0.1, "scale": 0.1, "kernel": 0.0}  # so that they tell
    params = {k: {n: p + biases[n] for n, p in layer.items()} for k, layer in params.items()}

    def plain(params, x):
        for i, filters in enumerate(encoder.features):
            layer = nn.Conv(filters, (encoder.kernels[i],) * 2, padding=encoder.padding)
            x = layer.apply({"params": params[f"conv_{i}"]}, x)
            if encoder.norm:
                norm = nn.GroupNorm(math.gcd(8, filters), use_fast_variance=False)
                x = norm.apply({"params": params[f"norm_{i}"]}, x)
            x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        return x.transpose(0, 3, 1, 2).reshape(len(x), -1)

    def ours(params, x):
        return encoder.apply({"params": params}, x, train=True).values[:, 0]

    def of(function):
        def loss(params, x):
            values = function(params, x)
            return jnp.sum(jnp.sin(values) * random(1, *values.shape)), values

        return jax.jit(jax.vmap(jax.grad(loss, (0, 1), has_aux=True), (0, None)))

    same = functools.partial(assert_equal_sums, terms=x[..., 0].size)  # a kernel's gradient
    jax.tree.map(same, of(ours)(params, x), of(plain)(params, x))
    return str(jax.make_jaxpr(of(ours))(params, x))


@pytest.mark.parametrize("cache", [10_000, pytest.param(35_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("batch", [pytest.param(24, marks=pytest.mark.slow), 29])
@pytest.mark.parametrize("padding", ["SAME", pytest.param("VALID", marks=pytest.mark.slow)])
def test_chunks_of_a_batch_are_as_plain_layers(padding, batch, cache, set_cache_bytes, monkeypatch):
    set_cache_bytes(cache)
    monkeypatch.setattr(conv_layers, "MIN_CHUNK", 8)
    encoder = ConvEncoder((3, 26), padding=padding)  # few filters, then many
    assert "scan[" in as_plain_layers(encoder, random(0, batch, 12, 12, 2))


@pytest.mark.parametrize("sides", [pytest.param((12, 16), marks=pytest.mark.slow), (14, 13)])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("norm", [pytest.param(False, marks=pytest.mark.slow), True])
def test_towers_are_as_plain_layers(norm, padding, sides):
    """Few filters, then many; also where pooling drops an odd column, which the norm sees."""
    as_plain_layers(ConvEncoder((6, 26), (5, 3), None, padding, norm), random(0, 3, *sides, 2))


# Odd and even filters on odd and even images.
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    "size, sides",
    [((1, 1), (8, 12)), ((2, 3), (9, 11)), ((3, 3), (8, 12)), ((5, 5), (9, 11)), ((4, 7), (8, 12))],
)
@pytest.mark.parametrize(
    "conv", [conv2d_file.conv2d_by_patches, conv2d_file.conv2d_recomputing_patches]
)
def test_blocks_hold_what_pooling_compares(conv, size, sides, padding):
    """A 2x2 block's four pixels of XLA's convolution, and their gradients."""
    x, kernel = random(0, 3, *sides, 2), random(1, *size, 3, 4)
    whole = jax.eval_shape(lambda *args: conv2d_file.plain_conv2d(*args, padding), x, kernel)
    rows, columns = (n // 2 for n in whole.shape[1:3])

    def of_blocks(x, kernel):
        return conv2d_in_blocks.convolve_in_blocks(x, kernel, padding, conv)

    def plain(x, kernel):
        pixels = conv2d_file.plain_conv2d(x, kernel, padding)[:, : 2 * rows, : 2 * columns]
        four = [pixels[:, down::2, right::2] for down in (0, 1) for right in (0, 1)]
        return jnp.stack(four, axis=1)

    @jax.jit
    def of_both(x, kernel, cotangent):
        results = [jax.vjp(function, x, kernel) for function in (of_blocks, plain)]
        return [(values, pull(cotangent)) for values, pull in results]

    cotangent = random(2, 4, 4, rows, columns, 2)
    (values, gradients), (expected, expected_gradients) = of_both(x, kernel, cotangent)
    error, errors = bound_conv_errors(x, kernel, conv=conv2d_file.plain_conv2d, padding=padding)
    assert_within(values, expected, 2 * error.max())
    for got, wanted, error in zip(gradients, expected_gradients, errors, strict=True):
        assert_within(got, wanted, 2 * np.abs(cotangent).max() * error)


def test_few_filters_take_blocks_and_many_do_not():
    """By the rows of the first layer's product: four times the filters, or the filters."""

    def program(filters, kernel):
        encoder = ConvEncoder((filters,), kernel)
        x = jax.ShapeDtypeStruct((2, 12, 12, 1), jnp.float32)
        params = jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x, train=True), x)
        return jax.jit(lambda p, x: encoder.apply(p, x, train=True)).lower(params, x).as_text()

    assert "tensor<16x24xf32>" in program(6, 3)  # 4 windows of 4 pixels, 4 times 6 filters
    assert "tensor<36x24xf32>" in program(6, 5)
    assert "tensor<9x30xf32>" in program(30, 3)
    assert "tensor<4x6xf32>" in program(6, 2)  # four times the work


@pytest.mark.parametrize(
    "channels",
    [pytest.param(3, marks=pytest.mark.slow), 6, pytest.param(16, marks=pytest.mark.slow)],
)
def test_group_norm_is_flaxs_with_its_first_and_second_derivatives(channels):
    """The mean is far from zero, as that of an input's channels can be."""
    x, norm = random(0, channels, 6, 5, 3) + 3, NormParameters(*random(1, 2, channels))
    added = random(2, channels)
    flax_norm = nn.GroupNorm(math.gcd(8, channels), use_fast_variance=False)

    def plain(x, norm, added):
        x = to_batch_first(x + jnp.reshape(added, (-1, 1, 1, 1)))
        return to_batch_last(flax_norm.apply({"params": norm._asdict()}, x))

    def of(function):
        def loss(*args):
            return jnp.sum(jnp.sin(function(*args)))

        def both(*args):
            along = jnp.cos(9 * args[0]), *args[1:]
            return function(*args), jax.jvp(jax.grad(loss, (0, 1, 2)), args, along)

        return jax.jit(both)

    same = functools.partial(assert_equal_sums, terms=x[0].size)
    jax.tree.map(same, of(group_norm)(x, norm, added), of(plain)(x, norm, added))
    same(group_norm(x, norm), plain(x, norm, 0))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("height, cache", [(13, 1), (5, 20_000), (12, 20_000), (13, 20_000)])
@pytest.mark.parametrize("in_strips, channels", [(patches_conv2d, 3), (chunk_conv2d, 6)])
def test_strips_of_images_are_as_xla_has_it(
    in_strips, channels, padding, height, cache, set_cache_bytes
):
    """Of one row each, and of several rows that do not always divide the height."""
    x, kernel = random(0, 6, height, 8, channels), random(1, 3, 4, channels, 5)

    def of(conv):
        def loss(x, kernel):
            values = conv(x, kernel, padding)
            return jnp.sin(values).sum(), values

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))

    set_cache_bytes(cache)
    pixels = height * 8 if padding == "SAME" else (height - 2) * 5
    several = 6 * pixels * 12 * channels * 4 > 2 * cache
    assert ("scan[" in str(jax.make_jaxpr(of(in_strips))(x, kernel))) == several
    gradients, values = of(in_strips)(x, kernel)
    expected_gradients, expected = of(native_conv2d)(x, kernel)
    # What comes back is the cosine of the values, which is off by no more than they are.
    error, errors = bound_conv_errors(x, kernel, padding=padding, cotangent_error=1)
    assert_within(values, expected, 2 * error)
    for got, wanted, error in zip(gradients, expected_gradients, errors, strict=True):
        assert_within(got, wanted, 2 * error)


@pytest.mark.parametrize(
    "count, cache_share, least, expected",
    [
        (9, 1.0, 16, 9),
        (9, 0.5, 1, 9),
        (10, 1.0, 16, 16),
        (128, 1.0, 16, 16),
        (128, 1.0, 1, 4),
        (128, 0.5, 1, 2),
        (128, 1.0, 3, 3),
        (127, 1.0, 2, 4),
    ],
)
def test_as_many_go_together_as_fit_the_cache(count, cache_share, least, expected):
    """Patches of one image of the textbook: 9 * 32 * 14 * 14 * 4 = 225,792 of 1,048,576 bytes."""
    of_one = conv_layers.count_patch_bytes((count, 28, 28, 1), layers(3, 1, 32, 64), "SAME")
    assert of_one == 225_792
    assert conv2d_file.count_fitting_cache(count, of_one, cache_share, least) == expected


def test_blocks_have_fewer_patches():
    """LeNet's second layer: windows of 3x3 blocks, 40 numbers a block, 4x4 blocks."""
    lenet = layers(5, 1, 10, 20)
    assert conv_layers.count_patch_bytes((1, 28, 28, 1), lenet, "VALID") == 3 * 3 * 40 * 4 * 4 * 4


def layers(side, *channels):
    return [
        conv_layers.ConvLayer(jnp.zeros((side, side, c, o)), jnp.zeros(o))
        for c, o in itertools.pairwise(channels)
    ]


def test_lenet_has_the_published_size():
    """Sener and Koltun's: 10 and 20 filters of 5x5 without padding leave 4x4x20 = 320 numbers."""
    lenet = ConvEncoder((10, 20), kernel=5, width=50, padding="VALID")

    def shapes(side):
        return jax.eval_shape(lambda: run(lenet, 1, side, side, 1))["params"]

    assert shapes(28)["dense"]["kernel"].shape == (320, 50)
    assert sum(x.size for x in jax.tree.leaves(shapes(28))) == 260 + 5020 + 16050
    assert shapes(16)["dense"]["kernel"].shape == (20, 50)


@pytest.mark.parametrize("encoder", [ConvEncoder((2,)), MLPEncoder((3,))])
def test_bytes_are_brought_to_the_unit_range(encoder):
    pixels = np.random.default_rng(0).integers(0, 256, size=(2, 4, 4, 1), dtype=np.uint8)
    got, params = encoder.init_with_output(jax.random.key(0), jnp.asarray(pixels), train=False)
    unit = jnp.asarray(pixels / 255, jnp.float32)
    expected = encoder.apply(params, unit, train=False)
    np.testing.assert_allclose(got.values, expected.values, atol=bound_difference(20))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ConvEncoder(()), "features is empty"),
        (lambda: MLPEncoder(()), "features is empty"),
        (lambda: ConvEncoder((2, 2), kernel=(3, 3, 3)), "3 sides for 2 layers"),
        (lambda: run(ConvEncoder(), 2, 28, 28), "channel axis"),
        (lambda: run(ConvEncoder((2, 2, 2)), 2, 28, 7, 1), "28x7 is too small for 3 poolings"),
        (lambda: run(ConvEncoder((2, 2), 5, padding="VALID"), 2, 15, 16, 1), "need 16x16"),
        (lambda: run(ConvEncoder((2, 2), (5, 3), None, "VALID"), 2, 11, 16, 1), "need 12x12"),
    ],
)
def test_what_cannot_work_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def run(encoder, *shape):
    return encoder.init(jax.random.key(0), jnp.zeros(shape), train=False)
