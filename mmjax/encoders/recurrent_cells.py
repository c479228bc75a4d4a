"""Recurrent cells: Elman's simple network, the gated recurrent unit, long short-term memory."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

Carry = tuple[Array, ...]


class Cell(NamedTuple):
    """A recurrent cell: the update of one time step, given both matrix products.

    A new cell is one function, as a minimal gated unit with one gate:

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> from mmjax.encoders import RecurrentEncoder
      >>> def step(carry, inputs, recurrent):
      ...     f, g = jnp.split(inputs + recurrent, 2, axis=-1)
      ...     (h,) = carry
      ...     f = jax.nn.sigmoid(f)
      ...     return ((1 - f) * h + f * jnp.tanh(g),)
      >>> encoder = RecurrentEncoder(Cell(bias=(1.0, 0.0), states=1, step=step), width=8)
      >>> x = jnp.zeros((2, 5, 3))
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), x)
      >>> tokens.values.shape
      (2, 1, 8)

    Attributes:
      bias: initial bias of each gate; its length is the number of gates.
      states: number of arrays [b width] in the carry. They start at zero; the first is the output.
      step: (carry, inputs, recurrent) -> carry, where inputs = W x_t + b and
        recurrent = U h_{t-1} (+ c), both [b gates*width] with the gates side by side.
      recurrent_bias: whether `recurrent` has a bias c of its own (zeros at first).
    """

    bias: tuple[float, ...]
    states: int
    step: Callable[[Carry, Array, Array], Carry]
    recurrent_bias: bool = False


def elman(activation: Callable[[Array], Array] = jnp.tanh) -> Cell:
    """Makes the cell of the simple recurrent network: h_t = f(W x_t + U h_{t-1} + b).

    Source: Elman, "Finding structure in time", Cognitive Science 1990.

    Example:
      >>> from mmjax.encoders import RecurrentEncoder
      >>> RecurrentEncoder(elman(), width=8).cell.states
      1
    """

    def step(carry: Carry, inputs: Array, recurrent: Array) -> Carry:
        del carry
        return (activation(inputs + recurrent),)

    return Cell(bias=(0.0,), states=1, step=step)


def gru() -> Cell:
    """Makes the gated recurrent unit that applies its reset gate after the matrix product.

    r = σ(W_r x + U_r h + b_r), z = σ(W_z x + U_z h + b_z), n = tanh(W_n x + b_n + r (U_n h + c_n)),
    h' = (1 - z) n + z h: the variant of cuDNN and PyTorch, gates in the order r, z, n.

    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014
    (the first version of the preprint; the final one resets before the product).

    Example:
      >>> from mmjax.encoders import RecurrentEncoder
      >>> RecurrentEncoder(gru(), width=8, bidirectional=True).cell.recurrent_bias
      True
    """
    return Cell(bias=(0.0, 0.0, 0.0), states=1, step=_gru_step, recurrent_bias=True)


def _gru_step(carry: Carry, inputs: Array, recurrent: Array) -> Carry:
    (h,) = carry
    r, z, n = jnp.split(inputs, 3, axis=-1)
    ur, uz, un = jnp.split(recurrent, 3, axis=-1)
    # Reset and update gates.
    r, z = jax.nn.sigmoid(r + ur), jax.nn.sigmoid(z + uz)
    # The candidate; r multiplies the recurrent product including its bias c_n.
    n = jnp.tanh(n + r * un)
    return ((1 - z) * n + z * h,)


def lstm() -> Cell:
    """Makes the cell of long short-term memory: c' = σ(f) c + σ(i) tanh(g), h' = σ(o) tanh(c').

    Gates in the order i, f, g, o, as in PyTorch. The forget gate's bias starts at 1, so that the
    cell remembers at first (Jozefowicz et al., ICML 2015).

    Source: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.

    Example:
      >>> from mmjax.encoders import RecurrentEncoder
      >>> RecurrentEncoder(lstm(), width=8).cell.bias
      (0.0, 1.0, 0.0, 0.0)
    """
    return Cell(bias=(0.0, 1.0, 0.0, 0.0), states=2, step=_lstm_step)


def _lstm_step(carry: Carry, inputs: Array, recurrent: Array) -> Carry:
    _, c = carry
    i, f, g, o = jnp.split(inputs + recurrent, 4, axis=-1)
    # Forget a part of the cell, and add a part of the candidate.
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c
