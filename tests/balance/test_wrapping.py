"""Wrapped balancers: what is not replaced works on the wrapped state."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from mmjax.balance import Balancer
from mmjax.balance.wrapping import init_balancer, wrap_balancer


class Outer(NamedTuple):
    balancer: Any


def make_balancer(**fields):
    def update(losses, pullback, state, *, key, labeled):
        return {}, losses, state

    return Balancer(lambda tasks, shared, **options: (tasks, options), update, **fields)


def test_functions_of_the_wrapped_balancer_get_its_state():
    inner = make_balancer(
        after=lambda state, before, after, *, labeled: state + 1,
        validate=lambda state, train, validation: state + 10,
        hide=lambda state, present, *, key, indices: {"state": state},
        revise=lambda state, params: params + state,
        parts=3,
    )
    wrapped = wrap_balancer(inner, scores="unimodal")
    state = Outer(1.0)
    losses = jnp.ones(2)
    assert wrapped.after(state, losses, losses, labeled=losses > 0) == Outer(2.0)
    assert wrapped.validate(state, losses, losses) == Outer(11.0)
    assert wrapped.hide(state, {}, key=None, indices=None) == {"state": 1.0}
    assert wrapped.revise(state, 5.0) == 6.0
    assert (wrapped.parts, wrapped.scores) == (3, "unimodal")


def test_functions_that_it_lacks_stay_absent_and_replaced_ones_are_not_lifted():
    inner = make_balancer(validate=lambda state, train, validation: state)
    wrapped = wrap_balancer(inner, validate=None, params=True)
    assert wrapped.after is wrapped.hide is wrapped.revise is wrapped.validate is None
    assert wrapped.params


def test_a_balancer_starts_with_what_it_asks_for():
    given = {"modalities": ("a",), "params": {"w": 1}}
    for asked in ({}, {"scores": "unimodal"}, {"params": True}):
        _, options = init_balancer(make_balancer(**asked), ("y",), {}, **given)
        names = {"scores": "modalities", "params": "params"}
        assert set(options) == {names[x] for x in asked}
