"""Runs made by somebody who wants to write files, or to run code, where they are opened."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiddle as fdl
import numpy as np
import optax

from mmjax import Experiment, Model, data, losses
from mmjax.auxiliary import Distillation
from mmjax.config import serialize
from mmjax.encoders import MLPEncoder, Wrap
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.runs.teacher import trained

EVIL = "evil_module"  # an installed module that does harm when it is imported
CANARY = "canary"  # a file of this name is what an attack would leave
CODE = "import os, pathlib\npathlib.Path({place!r}).write_text('code was run')\n"


def innocent() -> fdl.Buildable:
    """Returns a small experiment that does no harm."""
    return fdl.Config(
        Experiment,
        data=fdl.Config(data.interactions, train=16, validation=8, test=8),
        model=fdl.Config(
            Model,
            encoders={"a": fdl.Config(MLPEncoder, features=(4,))},
            fusion=fdl.Config(Concat),
            heads={"redundancy": fdl.Config(Classification, 2)},
        ),
        optimizer=fdl.Config(optax.adam, 1e-3),
        epochs=1,
        batch_size=8,
        eval_batch_size=8,
    )


NAMES = [
    ("os", "system"),
    ("posix", "system"),
    ("os", "makedirs"),
    ("subprocess", "Popen"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "open"),
    ("builtins", "__import__"),
    ("builtins", "getattr"),
    ("builtins", "type"),
    ("importlib", "import_module"),
    ("runpy", "run_path"),
    ("pickle", "loads"),
    ("shutil", "copyfile"),
    ("pathlib", "Path"),
    ("pathlib", "Path.write_text"),
    ("tempfile", "mkdtemp"),
    ("urllib.request", "urlretrieve"),
    ("functools", "partial"),
    ("functools", "reduce"),
    ("operator", "methodcaller"),
    ("numpy", "save"),
    ("numpy", "load"),
    (EVIL, "thing"),
    ("antigravity", "fly"),
    ("jax", "jit"),
    ("jax", "config.update"),
    ("jax", "debug.callback"),
    ("jax.profiler", "start_trace"),
    ("jax.numpy", "save"),
    ("jax.numpy", "savez"),
    ("jax.numpy", "load"),
    ("jax.numpy", "fromfile"),
    ("jax.numpy", "frompyfunc"),
    ("jax.numpy", "vectorize"),
    ("jax.numpy", "apply_along_axis"),
    ("jax.numpy", "set_printoptions"),
    ("jax.numpy", "linalg"),
    ("jax._src.numpy.lax_numpy", "save"),
    ("jax._src.numpy.lax_numpy", "os.system"),
    ("jax.nn", "initializers"),
    ("flax.linen", "jit"),
    ("flax.linen", "vmap"),
    ("flax.linen", "Module"),
    ("flax.linen", "intercept_methods"),
    ("flax.linen", "module.importlib.import_module"),
    ("flax.serialization", "from_bytes"),
    ("flax.training.checkpoints", "save_checkpoint"),
    ("optax", "contrib"),
    ("optax", "sys.exit"),
    ("optax", "tree_utils.tree_map"),
    ("optax._src.base", "jax.config.update"),
    ("optax._src.alias", "functools.partial"),
    ("orbax.checkpoint", "PyTreeCheckpointer"),
    ("fiddle", "build"),
    ("fiddle._src.config", "sys.exit"),
    ("fiddle.experimental.serialization", "load_json"),
    ("mmjaxevil", "thing"),
    ("mmjax", "run"),
    ("mmjax", "fit"),
    ("mmjax", "data.originals._fetch"),
    ("mmjax.cli", "main"),
    ("mmjax.cli.experiment_commands", "script"),
    ("mmjax.runs.workdir", "write"),
    ("mmjax.config", "load"),
    ("mmjax.config.public_names", "_of_module"),
    ("mmjax.config.experiment_source", "import_file"),
    ("mmjax.config.serialize", "importlib.import_module"),
    ("mmjax.runs.experiment_code", "run_copy"),
    ("mmjax.provenance", "git"),
    ("mmjax.provenance", "subprocess.run"),
    ("mmjax.runs.teacher", "trained"),
    ("mmjax.train.reporting.run_report", "write_json"),
    ("mmjax.files", "lock"),
    ("mmjax.data.builtin.array_cache", "_write_arrays"),
    ("mmjax.data.builtin.array_cache", "load_or_build_arrays"),
    ("mmjax.data.builtin.tfds_builder", "prepare_dataset"),
    ("mmjax.data.builtin.tfds_builder", "shutil.rmtree"),
    ("mmjax.data.builtin.originals.download", "_download_file"),
    ("mmjax.data.builtin.originals.download", "_fetch_url"),
    ("mmjax.data.builtin.originals.download", "OriginalFile"),
    ("mmjax.data.builtin.originals.download", "OriginalFiles"),
    ("mmjax.data.dataset", "dataclasses.sys.exit"),
    ("mmjax.data.dataset", "Dataset.__init__"),
    ("mmjax.heads", "nn.module.functools.partial"),
    ("mmjax.heads", "Classification.__call__.__globals__"),
    ("mmjax.heads", "__loader__.get_data"),
    ("mmjax.encoders.conv", "jax"),
    ("mmjax.study.study", "Study"),
    ("<experiment>", "os.system"),
    ("<experiment>", "boom"),
    ("", "x"),
    ("mmjax", ""),
]


def renamed(module: Any, name: Any) -> str:
    """Returns the innocent configuration with its optimizer called by another name."""
    return with_optimizer({"type": "pyref", "module": module, "name": name})


def with_optimizer(called: Any) -> str:
    """Returns the innocent configuration with something else in the place of `optax.adam`."""
    text = json.loads(serialize.dump_config(innocent()))

    def replace(part: Any) -> Any:
        if isinstance(part, dict):
            if part.get("type") == "pyref" and part["name"] == "adam":
                return called
            return {k: replace(v) for k, v in part.items()}
        return [replace(v) for v in part] if isinstance(part, list) else part

    return json.dumps(replace(text))


def changed(**fields: Any) -> str:
    """Returns the innocent configuration with other fields."""
    config = innocent()
    for path, value in fields.items():
        *heads, last = path.split("__")
        node = config
        for head in heads:
            node = node[head] if isinstance(node, dict) else getattr(node, head)
        if isinstance(node, dict):
            node[last] = value
        else:
            setattr(node, last, value)
    return serialize.dump_config(config)


def chains(secret: Path, out: Path) -> dict[str, str]:
    """Returns configurations in which listed or private functions are called in the wrong place."""
    from mmjax import files
    from mmjax.data.builtin import array_cache, tfds_builder
    from mmjax.data.builtin.originals import download

    place = str(out / CANARY)
    original = fdl.Config(download.OriginalFile, str(out), (CANARY,), (f"file://{secret}",))
    columns = {"inputs": {"x": "a"}, "targets": {"y": "b"}}
    table = fdl.Config(data.from_table, str(secret), **columns)
    arrays = {"inputs": ["x"], "targets": ["y"]}
    new = str(out / "new")
    tfds = {"inputs": {"image": "image"}, "targets": {"digit": "label"}}
    return {
        "download of a file": changed(
            data=fdl.Config(
                download.OriginalFiles.find,
                fdl.Config(download.OriginalFiles, None, fdl.Config(Path, str(out))),
                original,
            )
        ),
        "fetch": changed(data=fdl.Config(download._fetch_url, f"file://{secret}", Path(place))),
        "fetch of data": changed(data=fdl.Config(download._fetch_url, "data:,evil", Path(place))),
        "fetch where a number is": changed(
            optimizer__learning_rate=fdl.Config(
                download._fetch_url, f"file://{secret}", Path(place)
            )
        ),
        "write of arrays": changed(data=fdl.Config(array_cache._write_arrays, Path(place), {})),
        "a lock": changed(data=fdl.Config(files.lock_file, Path(place), "x")),
        "a preparation": changed(data=fdl.Config(tfds_builder.prepare_dataset, data_dir=new)),
        "a table where a number is": changed(optimizer__learning_rate=table),
        "a table where an encoder is": changed(model__encoders__a=table),
        "a table in a chain": changed(optimizer=fdl.Config(optax.chain, table)),
        "a table in a wrapper": changed(model__encoders__a=fdl.Config(Wrap, table)),
        "a table as a function": changed(
            model__heads__redundancy__loss=fdl.Partial(data.from_table, str(secret), **columns)
        ),
        "a data function as a loss": changed(model__heads__redundancy__loss=data.from_table),
        "a data function for optax": changed(
            optimizer=fdl.Config(optax.inject_hyperparams, data.from_table)
        ),
        "a partial for optax": changed(
            optimizer=fdl.Config(optax.stateless, fdl.Partial(data.av_mnist, data_dir=new))
        ),
        "polyglot_digits elsewhere": changed(data=fdl.Config(data.polyglot_digits, data_dir=new)),
        "av_mnist elsewhere": changed(data=fdl.Config(data.av_mnist, data_dir=new)),
        "av_mnist of a folder": changed(
            data=fdl.Config(data.av_mnist, data_dir=new, manual_dir=str(secret.parent))
        ),
        "multi_mnist where it may write": changed(
            data=fdl.Config(data.multi_mnist, data_dir=str(out))
        ),
        "multi_mnist at home": changed(data=fdl.Config(data.multi_mnist)),
        "TFDS download": changed(data=fdl.Config(data.from_tfds, "mnist", **tfds)),
        "TFDS elsewhere": changed(data=fdl.Config(data.from_tfds, "mnist", data_dir=new, **tfds)),
        "TFDS by network": changed(
            data=fdl.Config(data.from_tfds, "mnist", data_dir="gs://evil/data", **tfds)
        ),
        "TFDS of a community": changed(data=fdl.Config(data.from_tfds, "evil:thing", **tfds)),
        "TFDS of Hugging Face": changed(
            data=fdl.Config(data.from_tfds, "huggingface:evil/thing", **tfds)
        ),
        "TFDS out of its folder": changed(
            data=fdl.Config(data.from_tfds, "../../etc", data_dir=str(out), **tfds)
        ),
        "TFDS with arguments": changed(
            data=fdl.Config(data.from_tfds, f"mnist/data_dir={new}", **tfds)
        ),
        "TFDS with a class of its own": changed(
            data=fdl.Config(
                data.from_tfds, "evil_set", data_dir=str(secret.parent / "tfds"), **tfds
            )
        ),
        "TFDS of a call": changed(
            data=fdl.Config(data.from_tfds, fdl.Config(losses.huber, 1.0, 2.0), **tfds)
        ),
        "pickled arrays": changed(
            data=fdl.Config(
                data.from_arrays, {"train": str(secret.parent / "pickled.npz")}, **arrays
            )
        ),
        "a table that is not there": changed(
            data=fdl.Config(data.from_table, f"file://{secret}", **columns)
        ),
        "no data": changed(data=3),
        "no model": changed(model="x"),
        "no encoders": changed(model__encoders={"a": "x"}),
        "a teacher that trusts itself": changed(
            model__auxiliary={
                "x": fdl.Config(
                    Distillation,
                    fdl.Config(
                        trained, str(out.parent / "other"), "all", allow=[EVIL], allow_code=True
                    ),
                )
            }
        ),
        "nonsense for optax": changed(optimizer=fdl.Config(optax.chain, 3, "x", [None])),
        "an optimizer as the whole": serialize.dump_config(fdl.Config(optax.adam, 1e-3)),
        "data as the whole": serialize.dump_config(table),
        "a list as the whole": serialize.dump_config([innocent()]),
        "a partial as the whole": serialize.dump_config(fdl.Partial(Experiment)),
    }


def malformed() -> dict[str, str]:
    """Returns texts that are not configurations."""
    text = serialize.dump_config(innocent())
    cycle = {"type": "ref", "key": "x"}
    pyref = {"type": "pyref", "module": "optax", "name": "adam"}
    return {
        "nothing": "",
        "half": text[: len(text) // 2],
        "deep": "[" * 100_000,
        "deep objects": '{"root":' * 20_000 + "1" + "}" * 20_000,
        "a cycle": json.dumps({"root": cycle, "objects": {"x": cycle}}),
        "a name as the whole": json.dumps({"root": pyref, "objects": {}}),
        "an object of no type": json.dumps({"root": {"type": {}}, "objects": {}}),
        "a name that is a list": json.dumps(
            {"root": {"type": "pyref", "module": ["os"], "name": {"system": 1}}, "objects": {}}
        ),
        "a call of a word": with_optimizer("adam"),
        "a call of a call": with_optimizer(json.loads(text)["root"]),
        "an unhashable set": json.dumps(
            {
                "root": {
                    "type": {"type": "pyref", "module": "builtins", "name": "set"},
                    "items": [["x", {"type": "leaf", "value": []}]],
                    "metadata": None,
                },
                "objects": {},
            }
        ),
    }


def write_run(directory: Path, out: Path, config: str, **facts: Any) -> Path:
    """Writes a run's directory with a configuration, and with other facts in `run.json`."""
    (directory / "all").mkdir(parents=True)
    for path in (directory / "config.json", directory / "all" / "config.json"):
        path.write_text(config)
    known = {"experiment": "innocent", "seeds": [0], "arms": ["all"], "arms_function": None}
    (directory / "run.json").write_text(json.dumps(known | facts))
    (directory / "provenance.json").write_text("[]")
    code = CODE.format(place=str(out / CANARY))
    (directory / "experiment.py").write_text(code + "def boom(*args, **kwargs): ...\n")
    (directory / "evil_module.py").write_text(code)
    (directory / "code").mkdir()
    (directory / "code" / "experiment.py").write_text(code + "def boom(*args, **kwargs): ...\n")
    note = {"main": "experiment.py", "module": None, "root": "/", "modules": {}}
    (directory / "code.json").write_text(json.dumps(note))
    return directory


def write_bait(folder: Path) -> None:
    """Writes the data that attacks read: a table, a pickle and a TFDS data set."""
    folder.mkdir()
    (folder / "secret.csv").write_text("a,b\n" + "".join(f"{i},{i % 2}\n" for i in range(40)))
    place = str(folder.parent / "out" / CANARY)

    class Evil:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return os.system, (f"echo run > '{place}'",)

    objects = np.empty(2, object)
    objects[:] = [Evil(), Evil()]
    assert pickle.dumps(objects)
    np.savez(folder / "pickled.npz", x=objects, y=np.array([0, 1]))
    home = folder / "tfds" / "evil_set" / "1.0.0"
    home.mkdir(parents=True)
    features = {"pythonClassName": "evil_module.Evil", "featuresDict": {"features": {}}}
    (home / "features.json").write_text(json.dumps(features))
    info = {"name": "evil_set", "version": "1.0.0", "fileFormat": "array_record", "splits": []}
    (home / "dataset_info.json").write_text(json.dumps(info))


def write_attacks(root: Path) -> list[Path]:
    """Writes all hostile runs below `root`, and an innocent one first; returns them."""
    bait, out, runs = root / "bait", root / "out", root / "runs"
    write_bait(bait)
    out.mkdir()
    (root / "installed").mkdir()
    (root / "installed" / f"{EVIL}.py").write_text(CODE.format(place=str(out / CANARY)))
    good = serialize.dump_config(innocent())
    configs = {f"name {m} {n}": renamed(m, n) for m, n in NAMES}
    configs |= chains(bait / "secret.csv", out) | malformed()
    facts: dict[str, dict[str, Any]] = {
        "arms out of the run": {"arms": ["all", "../../out"]},
        "arms of the root": {"arms": [str(out)]},
        "arms of no names": {"arms": [["all"]]},
        "a name out of the folder": {"experiment": "../../out/evil"},
        "a name of the root": {"experiment": str(out / "evil")},
        "seeds of words": {"seeds": ["x"]},
        "seeds of no list": {"seeds": 3},
    }
    functions = [
        "os:system",
        f"{EVIL}:thing",
        "mmjax.cli.experiment_commands:script",
        "mmjax.config.arms:fdl.build",
        "mmjax.config.arms:copy.copy",
        "mmjax.config.arms:_replace_modules",
        "<experiment>:boom",
        "mmjax.runs.experiment_code:run_code_copy",
        "",
    ]
    facts |= {f"arms by {name}": {"arms_function": name} for name in functions}
    written = [write_run(runs / "innocent", out, good)]
    for i, text in enumerate(configs.values()):
        written.append(write_run(runs / f"{i:03d}", out, text))
        (written[-1] / "what.txt").write_text(list(configs)[i])
    write_run(root / "other", out, renamed("<experiment>", "boom"))
    for i, (what, fact) in enumerate(facts.items()):
        written.append(write_run(runs / f"facts-{i:03d}", out, good, **fact))
        (written[-1] / "what.txt").write_text(what)
    return written
