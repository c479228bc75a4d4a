"""The variables that are not parameters, as the calls of one training step update them."""

import jax
import jax.numpy as jnp

from mmjax.types import Variables


def join_variables(
    old: Variables, of_features: Variables, of_heads: Variables, of_objectives: Variables
) -> Variables:
    """Joins the variables that a step's three calls update, each part's from the call that owns it.

    So every part is updated once, although objectives call the heads again.

    Raises:
      ValueError: if training changes the structure or the shapes of the variables.
    """

    def choose_call(part: str) -> Variables:
        if part.startswith(("heads_", "branch_heads_")):
            return of_heads
        return of_objectives if part.startswith("auxiliary_") else of_features

    new = {
        name: {part: choose_call(part)[name][part] for part in parts}
        for name, parts in of_features.items()
    }
    check_same_shapes(old, new)
    return new


def check_same_shapes(old: Variables, new: Variables) -> None:
    """Refuses variables whose structure or shapes training changes.

    Raises:
      ValueError: naming the shapes before and after.
    """
    before, after = (jax.tree.map(jnp.shape, tree) for tree in (old, new))
    if before != after:
        raise ValueError(
            f"A training step turns the model's variables of shapes {before} into {after}. Only "
            "variables of constant shapes can be carried; a value to record is sown as "
            '"intermediates".'
        )
