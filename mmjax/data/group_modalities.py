"""Modalities that consist of several arrays, such as the nodes and the edges of a graph."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmjax.data.dataset import Arrays, Dataset, Modality, Source
from mmjax.masks import make_length_mask
from mmjax.types import Batch

Groups = Mapping[str, Mapping[str, str]]


def group_modalities(data: Dataset, groups: Groups) -> Dataset:
    """Makes one modality of several, whose encoder then gets a mapping of their arrays.

    Parts called "nodes" and "edges" are a graph: edges are pairs of indices of nodes.

    An example has the new modality if it has the first part and every part that is not a sequence.
    Another part that it lacks is a sequence of length 0, as the edges of a graph of one node.

    Args:
      data: the data set.
      groups: {new modality: {part: modality of `data`}}.

    Raises:
      ValueError: if a modality does not exist, is used twice, has parts itself, if a new name is
        taken, or if an edge names a node that its graph lacks.

    Example:
      >>> import numpy as np
      >>> split = {
      ...     "atoms": [np.ones((2, 3)), np.ones((1, 3)), np.ones((2, 3))],
      ...     "bonds": [np.array([[0, 1], [1, 0]]), None, np.array([[1, 0]])],
      ...     "energy": [1.5, 0.5, 2.5],
      ... }
      >>> import contextlib, io, mmjax
      >>> with contextlib.redirect_stderr(io.StringIO()):  # what was inferred is printed there
      ...     data = mmjax.data.from_arrays({"train": split}, ["atoms", "bonds"], ["energy"])
      >>> data = group_modalities(data, {"molecule": {"nodes": "atoms", "edges": "bonds"}})
      >>> batch = data.splits["train"].take(np.array([0, 1, 2]))
      >>> {part: x.shape for part, x in batch.inputs["molecule"].items()}
      {'edges': (3, 2, 2), 'nodes': (3, 2, 3)}
      >>> {part: n.tolist() for part, n in batch.lengths["molecule"].items()}
      {'edges': [2, 0, 1], 'nodes': [2, 1, 2]}
    """
    used = [name for parts in groups.values() for name in parts.values()]
    for name in used:
        if name not in data.modalities:
            raise ValueError(
                f"{data.name} has no modality {name!r} to group, only {sorted(data.modalities)}."
            )
        if used.count(name) > 1:
            raise ValueError(
                f"The modality {name!r} is part of {used.count(name)} groups; use it once."
            )
        if data.modalities[name].parts:
            raise ValueError(f"The modality {name!r} has parts already; group it only once.")
    rest = {name: spec for name, spec in data.modalities.items() if name not in used}
    for name, parts in groups.items():
        if name in rest:
            raise ValueError(
                f"{data.name} already has a modality {name!r}; give the group another name."
            )
        if not parts:
            raise ValueError(f"The group {name!r} has no parts; name its modalities.")
        rest[name] = Modality((), parts={p: data.modalities[m] for p, m in parts.items()})
    splits = {name: _group_source(source, groups) for name, source in data.splits.items()}
    return dataclasses.replace(data, modalities=rest, splits=splits)


@dataclasses.dataclass(frozen=True)
class GroupedSource:
    """A source whose modalities are grouped as they are read."""

    source: Source
    groups: Groups

    def __len__(self) -> int:
        return len(self.source)

    def take(self, indices: np.ndarray) -> Batch:
        """Returns the examples at `indices`, in that order."""
        return _group_batch(self.source.take(indices), self.groups)


def _group_source(source: Source, groups: Groups) -> Source:
    if isinstance(source, Arrays):
        return Arrays(_group_batch(source.batch, groups))
    return GroupedSource(source, groups)


def _group_batch(batch: Batch, groups: Groups) -> Batch:
    inputs, present, lengths = dict(batch.inputs), dict(batch.present), dict(batch.lengths)
    for group, parts in groups.items():
        names = list(parts.values())
        inputs[group] = {part: inputs.pop(name) for part, name in parts.items()}
        where = {name: present.pop(name) for name in names}
        required = [m for m in names if m == names[0] or m not in lengths]
        present[group] = np.logical_and.reduce([where[name] for name in required])
        ends = {}
        for part, name in parts.items():
            if name in lengths:
                ends[part] = np.where(where[name], lengths.pop(name), 0)
        if ends:
            lengths[group] = ends
        if {"nodes", "edges"} <= set(parts):
            _check_edges(group, inputs[group], present[group], ends)
    return batch._replace(inputs=inputs, present=present, lengths=lengths)


def _check_edges(
    group: str,
    graph: Mapping[str, np.ndarray],
    present: np.ndarray,
    lengths: Mapping[str, np.ndarray],
) -> None:
    """Raises ValueError if an edge names a node that its graph lacks."""
    edges = graph["edges"]
    if edges.dtype.kind not in "iu":
        raise ValueError(f"The edges of {group!r} are {edges.dtype}; they must be whole numbers.")
    nodes = lengths.get("nodes", np.full(len(edges), graph["nodes"].shape[1]))
    ends = lengths.get("edges", np.full(len(edges), edges.shape[1]))
    real = present[:, None] & make_length_mask(ends, edges.shape[1])
    bad = real & ((edges < 0) | (edges >= nodes[:, None, None])).any(axis=-1)
    if bad.any():
        row, edge = np.argwhere(bad)[0]
        raise ValueError(
            f"Edge {edge} of {group!r} in row {row} is {edges[row, edge].tolist()}, but the graph "
            f"has {nodes[row]} nodes; indices must be 0 to {nodes[row] - 1}."
        )
