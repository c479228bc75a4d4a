"""Which arrays of a split are inputs, targets, lengths, masks and weights."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmjax.data.dataset import Modality, Task
from mmjax.data.kinds.media.point_cloud import PointCloud
from mmjax.data.sampling.example_weights import check_weight_names


class ArrayPlan(NamedTuple):
    """What the arrays of a split are.

    Attributes:
      inputs: names of the arrays that are modalities, or a `PointCloud` of a name.
      targets: names of the arrays that are tasks.
      lengths: {modality: name of the array of its lengths}, for sequences that are padded already.
      present: {modality: name of the bool array that says which rows are present}.
      labeled: {task: name of the bool array that says which rows have a label}.
      weights: {task: name of the array of its examples' weights}; see
        `mmjax.data.sampling.example_weights`.
      modalities: those that are not inferred; a sequence is padded to its given length.
      tasks: those that are not inferred.

    Example:
      >>> ArrayPlan(["x", PointCloud("scan")], ["y"], {"x": "ends"}).list_arrays()
      ['x', 'scan', 'y', 'ends']
    """

    inputs: Sequence[str | PointCloud]
    targets: Sequence[str]
    lengths: Mapping[str, str] = {}
    present: Mapping[str, str] = {}
    labeled: Mapping[str, str] = {}
    weights: Mapping[str, str] = {}
    modalities: Mapping[str, Modality] = {}
    tasks: Mapping[str, Task] = {}

    def list_inputs(self) -> list[str]:
        """Lists the names of the modalities."""
        return [spec.column if isinstance(spec, PointCloud) else spec for spec in self.inputs]

    def list_clouds(self) -> dict[str, PointCloud]:
        """Returns the modalities that are point clouds."""
        return {spec.column: spec for spec in self.inputs if isinstance(spec, PointCloud)}

    def list_arrays(self) -> list[str]:
        """Lists the names of all arrays, some of which may be named several times."""
        others = [self.lengths, self.present, self.labeled, self.weights]
        names = [name for mapping in others for name in mapping.values()]
        return [*self.list_inputs(), *self.targets, *names]

    def check(self) -> None:
        """Refuses names that are not strings, double or unknown.

        Raises:
          ValueError: naming the argument and the name.
        """
        if not self.inputs or not self.targets:
            raise ValueError("inputs and targets each need at least one array.")
        names = self.list_inputs()
        _check_distinct("inputs", names)
        _check_distinct("targets", self.targets)
        of_inputs = {"lengths": self.lengths, "present": self.present}
        _check_known_keys("inputs", names, of_inputs | {"modalities": self.modalities})
        of_targets = {"labeled": self.labeled, "tasks": self.tasks}
        _check_known_keys("targets", self.targets, of_targets)
        check_weight_names(self.weights, self.targets)


def _check_distinct(what: str, names: Sequence[Any]) -> None:
    for i, name in enumerate(names):
        if not isinstance(name, str):
            raise ValueError(f"{what} has the name {name!r}; every name must be a string.")
        if name in names[:i]:
            raise ValueError(f"{what} names {name!r} twice; name every array once.")


def _check_known_keys(
    what: str, names: Sequence[str], mappings: Mapping[str, Mapping[str, Any]]
) -> None:
    for argument, mapping in mappings.items():
        for key in mapping:
            if key not in names:
                raise ValueError(f"{argument} names {key!r}; the {what} are {sorted(names)}.")
