"""The inputs and outputs of an exported model, each a dictionary of named arrays.

A modality is an input of its own name, `MODALITY.present` says which examples have it, and
`MODALITY.length` gives the true lengths of sequences. A task is an output `TASK.probabilities` or
`TASK.values`, with the same meaning as in `mmjax predict`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mmjax.data.spec import Spec
from mmjax.runs.trained import Trained
from mmjax.types import Batch

Arrays = dict[str, Any]


class InputArray(NamedTuple):
    """One input.

    Attributes:
      modality: the modality that it belongs to.
      role: "values", "present" or "length", named as in a `Batch`.
      shape: shape of one example.
      dtype: type of the array.
    """

    modality: str
    role: str
    shape: tuple[int, ...]
    dtype: str


class OutputArray(NamedTuple):
    """One output.

    Attributes:
      task: the task that it predicts.
      quantity: "probabilities" or "values".
      shape: shape of one example.
      dtype: type of the array.
    """

    task: str
    quantity: str
    shape: tuple[int, ...]
    dtype: str


def _compute_ordinal_probabilities(logits: Float[Array, "b k"]) -> Float[Array, "b c"]:
    """Computes the probability of each class from the logits of y > k."""
    # P(y = k) = P(y > k - 1) - P(y > k), where P(y > -1) = 1 and P(y > c - 1) = 0.
    above = jax.nn.sigmoid(logits)
    ones = jnp.ones_like(above[:, :1])
    return jnp.concatenate([ones, above], axis=1) - jnp.concatenate([above, 0 * ones], axis=1)


def _keep_values(values: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
    return values


# {kind of task: name of the output, its formula}, as in `mmjax.runs.prediction.predictions`.
QUANTITIES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "classification": ("probabilities", jax.nn.softmax),
    "ordinal": ("probabilities", _compute_ordinal_probabilities),
    "multilabel": ("probabilities", jax.nn.sigmoid),
    "regression": ("values", _keep_values),
    "sequence": ("probabilities", jax.nn.softmax),
    "segmentation": ("probabilities", jax.nn.softmax),
    "depth": ("values", _keep_values),
}


def make_input_arrays(spec: Spec) -> dict[str, InputArray]:
    """Lists the inputs of an exported model by name.

    Raises:
      ValueError: a modality consists of several arrays, or two inputs get one name.

    Example:
      >>> from mmjax.data.dataset import Modality, Preparation
      >>> spec = Spec("pets", {"voice": Modality((9, 4), True)}, {}, {"voice": Preparation()})
      >>> list(make_input_arrays(spec))
      ['voice', 'voice.present', 'voice.length']
    """
    arrays: dict[str, InputArray] = {}
    for m, modality in spec.modalities.items():
        if modality.parts:
            raise ValueError(
                f"modality {m!r} consists of the arrays {', '.join(modality.parts)}; a model is "
                "exported only if each of its modalities is one array."
            )
        parts = {
            m: InputArray(m, "values", modality.shape, spec.preparations[m].dtype),
            f"{m}.present": InputArray(m, "present", (), "bool"),
        }
        if modality.sequence:
            parts[f"{m}.length"] = InputArray(m, "length", (), "int32")
        if twice := parts.keys() & arrays.keys():
            raise ValueError(f"two inputs would be named {min(twice)!r}; rename a modality.")
        arrays |= parts
    return arrays


def make_output_arrays(trained: Trained) -> dict[str, OutputArray]:
    """Lists the outputs of an exported model by name; nothing is computed.

    Raises:
      ValueError: as `make_input_arrays`.
    """
    # Any batch size will do; 2 does not broadcast, as 1 would.
    structs = make_input_structs(make_input_arrays(trained.spec), 2)
    shapes = jax.eval_shape(make_exported_function(trained), structs)
    arrays = {}
    for name, struct in shapes.items():
        task, _, quantity = name.rpartition(".")
        arrays[name] = OutputArray(task, quantity, struct.shape[1:], str(struct.dtype))
    return arrays


def make_input_structs(inputs: Mapping[str, InputArray], batch: Any) -> Arrays:
    """Makes the shapes and types of the inputs; `batch` may be a symbolic dimension."""
    return {
        name: jax.ShapeDtypeStruct((batch, *array.shape), array.dtype)
        for name, array in inputs.items()
    }


def make_exported_function(trained: Trained) -> Callable[[Arrays], Arrays]:
    """Makes the pure function that is exported, from a dictionary of arrays to another one.

    An example without any modality gets NaN. The parameters are constants of the function.
    """
    spec, members = trained.spec, jax.tree.map(jnp.asarray, trained.list_seed_variables())

    def predict(arrays: Arrays) -> Arrays:
        batch = unflatten_batch(spec, arrays)
        # One member after the other: jax2onnx converts some batched primitives, which `vmap` over
        # the members would make, to others without an error.
        of_members = [trained.compute_member_outputs(variables, batch) for variables in members]
        outputs = of_members[0]
        if len(members) > 1:
            outputs = trained.average_outputs(jax.tree.map(lambda *x: jnp.stack(x), *of_members))
        return _name_outputs(spec, outputs, batch.present)

    return predict


def _name_outputs(spec: Spec, outputs: Mapping[str, Array], present: Mapping[str, Array]) -> Arrays:
    """Returns {TASK.QUANTITY: values} of the outputs; NaN for an example without any modality."""
    is_valid = functools.reduce(jnp.logical_or, present.values())
    named = {}
    for task in spec.tasks:
        quantity, convert = QUANTITIES[spec.tasks[task].kind]
        # In bfloat16, probabilities would have only two or three digits.
        values = convert(outputs[task].astype(jnp.float32))
        valid = is_valid.reshape(-1, *(1,) * (values.ndim - 1))
        named[f"{task}.{quantity}"] = jnp.where(valid, values, jnp.nan)
    return named


def flatten_batch(spec: Spec, batch: Batch) -> Arrays:
    """Returns the inputs of a batch under the names of the exported model."""
    fields = {"values": batch.inputs, "present": batch.present, "length": batch.lengths}
    arrays = {}
    for name, (modality, role, _, dtype) in make_input_arrays(spec).items():
        arrays[name] = np.asarray(fields[role][modality], dtype)
    return arrays


def unflatten_batch(spec: Spec, arrays: Arrays) -> Batch:
    """Returns the batch, without targets, of the inputs of an exported model."""
    fields: dict[str, dict[str, Any]] = {"values": {}, "present": {}, "length": {}}
    for name, array in make_input_arrays(spec).items():
        fields[array.role][array.modality] = arrays[name]
    return Batch(fields["values"], fields["present"], fields["length"], {}, {})


def make_random_arrays(spec: Spec, count: int) -> Arrays:
    """Makes valid inputs with missing modalities and sequences of all lengths, to test a model."""
    rng = np.random.default_rng(0)
    arrays: Arrays = {}
    for number, (name, (m, role, shape, dtype)) in enumerate(make_input_arrays(spec).items()):
        kind, size = np.dtype(dtype).kind, (count, *shape)
        if role == "present":
            arrays[name] = (np.arange(count) + number) % 3 > 0
        elif role == "length":
            arrays[name] = rng.integers(1, spec.modalities[m].shape[0] + 1, size, np.int32)
        elif kind == "f":
            arrays[name] = rng.normal(size=size).astype(dtype)
        else:
            # Without a vocabulary, 0 and 1 are valid for every integer input.
            limit = len(spec.modalities[m].vocabulary) or 2
            arrays[name] = rng.integers(0, limit, size).astype(dtype)
    return arrays
