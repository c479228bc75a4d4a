"""Old names, in stored configurations, of objects and arguments that have moved or been renamed.

Configurations stored before constructors had public names hold the module that defined them. The
table is explicit; a name that is not in it is unchanged. The result must still pass the checks of
`mmjax.config.serialize`.
"""

from collections.abc import Mapping
from typing import Any

# {old module: (current module, the names that moved)}
_MOVED = {
    "mmjax.balance": ("mmjax.balance", "config random"),
    "mmjax.balance.aligned": ("mmjax.balance", "aligned"),
    "mmjax.balance.base": (
        "mmjax.balance",
        "from_gram from_jacobian from_losses from_stateful_gram",
    ),
    "mmjax.balance.cagrad": ("mmjax.balance", "cagrad"),
    "mmjax.balance.db_mtl": ("mmjax.balance", "db_mtl"),
    "mmjax.balance.double_sampling": ("mmjax.balance", "modo sdmgrad"),
    "mmjax.balance.dwa": ("mmjax.balance", "dwa"),
    "mmjax.balance.equal_angle": ("mmjax.balance", "config"),
    "mmjax.balance.excess_mtl": ("mmjax.balance", "excess_mtl"),
    "mmjax.balance.famo": ("mmjax.balance", "famo"),
    "mmjax.balance.graddrop": ("mmjax.balance", "graddrop"),
    "mmjax.balance.gradnorm": ("mmjax.balance", "gradnorm"),
    "mmjax.balance.gradvac": ("mmjax.balance", "gradvac"),
    "mmjax.balance.imtl_g": ("mmjax.balance", "imtl_g"),
    "mmjax.balance.learned": ("mmjax.balance", "imtl_l uncertainty"),
    "mmjax.balance.losses": ("mmjax.balance", "equal geometric scale_invariant static"),
    "mmjax.balance.mgda": ("mmjax.balance", "mgda"),
    "mmjax.balance.moco": ("mmjax.balance", "moco"),
    "mmjax.balance.nash": ("mmjax.balance", "fairgrad nash"),
    "mmjax.balance.pcgrad": ("mmjax.balance", "pcgrad"),
    "mmjax.balance.preference": ("mmjax.balance", "cosmos pbi"),
    "mmjax.balance.random": ("mmjax.balance", "random"),
    "mmjax.balance.robust": ("mmjax.balance", "krum trimmed_mean"),
    "mmjax.balance.stch": ("mmjax.balance", "log_stch stch"),
    "mmjax.balance.upgrad": ("mmjax.balance", "dualproj upgrad"),
    "mmjax.data.av_mnist": ("mmjax.data", "av_mnist"),
    "mmjax.data.columns": ("mmjax.data", "Audio Image Label Labels Numbers Text Value"),
    "mmjax.data.digit_pairs": ("mmjax.data", "digit_pairs"),
    "mmjax.data.from_arrays": ("mmjax.data", "from_arrays"),
    "mmjax.data.from_table": ("mmjax.data", "from_table"),
    "mmjax.data.from_tfds": ("mmjax.data", "from_tfds"),
    "mmjax.data.interactions": ("mmjax.data", "interactions"),
    "mmjax.data.kinds.audio": ("mmjax.data", "Audio"),
    "mmjax.data.kinds.depth_map": ("mmjax.data", "DepthMap"),
    "mmjax.data.kinds.image": ("mmjax.data", "Image"),
    "mmjax.data.kinds.image_bag": ("mmjax.data", "ImageBag"),
    "mmjax.data.kinds.mask": ("mmjax.data", "Mask"),
    "mmjax.data.kinds.point_cloud": ("mmjax.data", "PointCloud"),
    "mmjax.data.load.dialect": ("mmjax.data", "Dialect"),
    "mmjax.data.multi_digits": (
        "mmjax.data",
        "Pairing fashion_mnist_pairs multi_fashion multi_mnist",
    ),
    "mmjax.data.polyglot_digits": ("mmjax.data", "polyglot_digits"),
    "mmjax.data.samplers": ("mmjax.data", "ClassBalanced Stratified TaskMixture"),
    "mmjax.data.spectrogram": ("mmjax.data.audio.spectrogram", "Spectrogram"),
    "mmjax.encoders.recurrent": ("mmjax.encoders", "Cell elman gru lstm"),
    "mmjax.fusion.pool": ("mmjax.fusion", "pool"),
    "mmjax.fusion.transformer": ("mmjax.fusion", "Bottleneck Perceiver"),
    "mmjax.heads": ("mmjax.heads", "SequenceLabelling"),
    "mmjax.heads.sequence": ("mmjax.heads", "SequenceLabelling"),
    "mmjax.train.teacher": ("mmjax.runs.teacher", "trained"),
}
_RENAMED = {
    "mmjax.balance:config": "conflict_free",
    "mmjax.balance:random": "rlw",
    "mmjax.heads:SequenceLabelling": "SequenceLabeling",
}
# {function: ((old name of an argument, current name), ...)}
_RENAMED_ARGUMENTS = dict.fromkeys(
    ("mmjax.data:from_arrays", "mmjax.data:from_table", "mmjax.data:from_tfds"),
    (("standardise", "standardize"),),
)
# Two classes of the same name, in modules of their own.
_NOISES = {
    ("mmjax.data.av_mnist", "Noise"): ("mmjax.data.builtin.av_mnist", "Noise"),
    ("mmjax.data.polyglot_digits", "Noise"): ("mmjax.data.builtin.polyglot_digits", "Noise"),
}

_FUNCTION, _NAMES = "Attr(name='fn_or_cls')", "Attr(name='argument_names')"  # of a stored call


def find_current_name(module: str, name: str) -> tuple[str, str]:
    """Returns the module and the name that stand today for those of a stored configuration.

    Example:
      >>> find_current_name("mmjax.balance.equal_angle", "config")
      ('mmjax.balance', 'conflict_free')
      >>> find_current_name("optax", "adam")
      ('optax', 'adam')
    """
    if (module, name) in _NOISES:
        return _NOISES[module, name]
    current, names = _MOVED.get(module, (module, ""))
    if name not in names.split():
        return module, name
    return current, _RENAMED.get(f"{current}:{name}", name)


def list_renamed_arguments(module: str, name: str) -> tuple[tuple[str, str], ...]:
    """Returns (old name, current name) of the arguments of a function that were renamed.

    Example:
      >>> list_renamed_arguments("mmjax.data", "from_table")
      (('standardise', 'standardize'),)
    """
    return _RENAMED_ARGUMENTS.get(f"{module}:{name}", ())


def find_current_argument(name: str) -> str | None:
    """Returns the current name of an argument that some function had; None if none was renamed.

    Example:
      >>> find_current_argument("standardise")
      'standardize'
    """
    for arguments in _RENAMED_ARGUMENTS.values():
        for old, new in arguments:
            if old == name:
                return new
    return None


def rename_stored_arguments(data: Any) -> None:
    """Gives the arguments of a stored configuration their current names, in place.

    Args:
      data: the JSON that `mmjax.config.dump_config` writes, parsed.
    """
    objects = data["objects"]
    for node in objects.values():
        if not isinstance(node.get("metadata"), Mapping):
            continue
        fields = dict(_resolve(node["metadata"], objects).get("items", ()))
        if not {_FUNCTION, _NAMES} <= set(fields) or "module" not in fields[_FUNCTION]:
            continue
        function = fields[_FUNCTION]
        renamed = list_renamed_arguments(*find_current_name(function["module"], function["name"]))
        if renamed:
            attributes = {f"Attr(name='{old}')": f"Attr(name='{new}')" for old, new in renamed}
            node["items"] = [[attributes.get(key, key), value] for key, value in node["items"]]
            names, changes = _resolve(fields[_NAMES], objects), dict(renamed)
            names["items"] = [[i, changes.get(name, name)] for i, name in names["items"]]


def _resolve(value: Any, objects: Mapping[str, Any]) -> Any:
    """Returns the object that a reference stands for, and other values as they are."""
    return objects[value["key"]] if value["type"] == "ref" else value
