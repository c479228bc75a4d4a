"""Trees in which an array that occurs several times stays one array.

Features that all tasks share are one array. What JAX transforms returns one copy per task.
"""

import dataclasses
import functools
from typing import Any

import jax


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["leaves"],
    meta_fields=["positions", "treedef"],
)
@dataclasses.dataclass(frozen=True)
class UniqueLeaves:
    """A tree without repetitions of its leaves.

    Attributes:
      leaves: the distinct leaves.
      positions: for each leaf of the tree its place among them.
      treedef: structure of the tree.
    """

    leaves: list[Any]
    positions: tuple[int, ...]
    treedef: Any

    def restore(self) -> Any:
        """Returns the tree."""
        return jax.tree.unflatten(self.treedef, [self.leaves[i] for i in self.positions])


def deduplicate_leaves(tree: Any) -> UniqueLeaves:
    """Keeps each array of a tree once.

    Example:
      >>> x = jax.numpy.ones(3)
      >>> unique = deduplicate_leaves({"digit": x, "letter": x})
      >>> len(unique.leaves), unique.restore()["letter"] is x
      (1, True)
    """
    leaves, treedef = jax.tree.flatten(tree)
    unique = {id(leaf): leaf for leaf in leaves}
    order = {identity: i for i, identity in enumerate(unique)}
    return UniqueLeaves(list(unique.values()), tuple(order[id(x)] for x in leaves), treedef)
