"""How badly clusters of a modality's vectors match the classes, for `relearn`."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.auxiliary.base import Gather, Sums, select_modalities
from mmjax.fusion.pooling import pool
from mmjax.modalities.imbalance.objectives.unimodal_loss import check_task
from mmjax.types import Batch, Intermediates


class ClusterImpurity(nn.Module):
    """1 - the purity of as many clusters as there are classes; measured, never trained.

    The purity of clusters is the share of examples that are of their cluster's most common class.
    Each feature of the modality's mean token is scaled to -1 to 1, and the examples of an
    evaluation batch that have the modality and a label are clustered by K-means. The paper clusters
    whole splits; here `Experiment.eval_batch_size` decides how many examples are clustered at once,
    which should be many more than classes. In training steps the loss has no labels.

    Source: Wei et al., "Diagnosing and re-learning for balanced multimodal learning", ECCV 2024
    (arXiv:2407.09705).

    Attributes:
      modality: the modality.
      task: a task with one class per example.
      classes: number of its classes, and of clusters.
      iterations: number of iterations of K-means.

    Example:
      >>> ClusterImpurity("image", "digit", classes=10).iterations
      20
    """

    modality: str
    task: str
    classes: int
    iterations: int = 20

    needs_kinds: ClassVar[tuple[str, ...]] = ("classification", "ordinal")

    @nn.compact
    def __call__(
        self,
        seen: Intermediates,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Returns the impurity times the number of this device's examples, and the number."""
        select_modalities(self, seen, [self.modality])
        check_task(self, self.task, predictions)
        if train:
            return jnp.zeros(()), jnp.zeros(())
        vectors, present = pool(seen.tokens[self.modality])
        counted = present & batch.labeled[self.task]
        labels, everywhere = gather(batch.targets[self.task]), gather(counted)
        clusters = cluster_vectors(gather(vectors), everywhere, self.classes, self.iterations)
        purity = compute_purity(clusters, labels, everywhere, self.classes)
        count = counted.sum().astype(jnp.float32)
        return count * (1 - purity), count


def cluster_vectors(
    vectors: Float[Array, "b d"], counted: Bool[Array, " b"], clusters: int, iterations: int = 20
) -> Int[Array, " b"]:
    """Returns the cluster of each vector by K-means, whose order does not matter.

    Features are scaled to -1 to 1. The first center is the vector that is farthest from the mean;
    each further one is the farthest from the centers so far. A center without vectors stays.

    Args:
      vectors: the vectors.
      counted: those that are clustered; the others belong to any cluster.
      clusters: number of clusters.
      iterations: number of times that centers become the means of their vectors.

    Example:
      >>> vectors = jnp.array([[0.0], [0.1], [4.0], [4.2]])
      >>> cluster_vectors(vectors, jnp.ones(4, bool), clusters=2).tolist()
      [1, 1, 0, 0]
    """
    scaled = _scale_features(vectors.astype(jnp.float32), counted)
    weights = counted.astype(jnp.float32)
    mean = weights @ scaled / jnp.maximum(weights.sum(), 1)
    distances = ((scaled - mean[None]) ** 2).sum(axis=1)

    def seed(k: Int[Array, ""], state: tuple[Array, Array]) -> tuple[Array, Array]:
        centers, distances = state
        farthest = scaled[jnp.argmax(jnp.where(counted, distances, -1.0))]
        new = ((scaled - farthest[None]) ** 2).sum(axis=1)
        # Only the first center is chosen by the distances to the mean.
        return centers.at[k].set(farthest), jnp.where(k > 0, jnp.minimum(distances, new), new)

    def move(_: Int[Array, ""], centers: Float[Array, "k d"]) -> Float[Array, "k d"]:
        members = jax.nn.one_hot(_assign(scaled, centers), clusters) * weights[:, None]
        sizes = members.sum(axis=0)[:, None]
        return jnp.where(sizes > 0, members.T @ scaled / jnp.maximum(sizes, 1), centers)

    none = jnp.zeros((clusters, scaled.shape[1]))
    centers, _ = jax.lax.fori_loop(0, clusters, seed, (none, distances))
    return _assign(scaled, jax.lax.fori_loop(0, iterations, move, centers))


def compute_purity(
    clusters: Int[Array, " b"],
    labels: Int[Array, " b"],
    counted: Bool[Array, " b"],
    classes: int,
) -> Float[Array, ""]:
    """Returns the share of examples that are of their cluster's most common class; 1 of none.

    Example:
      >>> clusters, labels = jnp.array([0, 0, 0, 1]), jnp.array([1, 1, 0, 0])
      >>> float(compute_purity(clusters, labels, jnp.ones(4, bool), classes=2))
      0.75
    """
    members = jax.nn.one_hot(clusters, classes) * counted[:, None]
    table = members.T @ jax.nn.one_hot(labels, classes)
    number = counted.sum()
    return jnp.where(number > 0, table.max(axis=1).sum() / jnp.maximum(number, 1), 1.0)


def _scale_features(vectors: Float[Array, "b d"], counted: Bool[Array, " b"]) -> Array:
    """Scales each feature of the counted vectors to -1 to 1; a constant one to 0."""
    inside = counted[:, None]
    low = jnp.where(inside, vectors, jnp.inf).min(axis=0)
    high = jnp.where(inside, vectors, -jnp.inf).max(axis=0)
    varies = (high > low)[None]  # false if nothing is counted
    middle, half = (high + low)[None] / 2, (high - low)[None] / 2
    return jnp.where(inside & varies, (vectors - middle) / jnp.where(varies, half, 1.0), 0.0)


def _assign(vectors: Float[Array, "b d"], centers: Float[Array, "k d"]) -> Int[Array, " b"]:
    """Returns the index of the nearest center."""
    # |x - c|² without |x|², which does not matter; one product in place of differences [b k d].
    return jnp.argmin((centers**2).sum(axis=1)[None] - 2 * vectors @ centers.T, axis=1)
