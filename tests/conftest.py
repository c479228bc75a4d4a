"""Eight virtual devices, no silent broadcasting, caches apart; a small data set and experiment."""

import functools
import gc
import os
import signal

import hypothesis
import jax
import numpy as np
import optax
import pytest
from jax._src.interpreters import mlir
from jax.experimental.compilation_cache import compilation_cache

from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.encoders import MLPEncoder, RecurrentEncoder
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification, Regression
from mmjax.model import Model
from mmjax.sharing import HardSharing
from mmjax.train.hardware import compilation, parallel
from mmjax.types import Batch

# The tests compile hundreds of small programs and run each once; the slow ones, which start
# programs of their own, and the main job run as optimized as a user's.
jax.config.update("jax_disable_most_optimizations", True)
compilation.COMPILER_OPTIONS["cpu"] = compilation.RUN_ONCE_OPTIONS
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
gc.set_threshold(50_000)  # as mmjax's commands do
# How long an example takes says something of the machine, not of the code.
hypothesis.settings.register_profile(
    "untimed",
    hypothesis.settings(),
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("untimed")


def pytest_configure():
    """Has JAX and XLA compile small programs with less work, in this process only.

    XLA's older emitters take a third of the time for such programs, and a program as a whole takes
    less than in parts for many threads. XLA reads the variable once, here, and ends the process if
    it does not know a flag. JAX makes a context of MLIR for each program that it lowers: a quarter
    of the time that a small program takes, and a megabyte that stays; one context serves all.
    """
    if jax.__version_info__[:2] == (0, 10):
        with pytest.MonkeyPatch.context() as patch:
            flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
            patch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} {flags}")
            jax.devices()
        mlir.make_ir_context = functools.cache(mlir.make_ir_context)
    # A shell that starts the tests in the background, or `nohup`, has them ignore these.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_finish():
    """Keeps the garbage collector from visiting all modules and tests again at every collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _caches(tmp_path_factory):
    """Keeps the tests' caches out of the user's; what one test compiled serves all, in any process.

    Many tests compile the same programs: those of training and ablations take a fifth less time.
    """
    root = tmp_path_factory.getbasetemp()
    every = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    jax.config.update("jax_compilation_cache_dir", str(every / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    compilation_cache.reset_cache()  # which has none, if something was compiled before
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def toy_batch(examples: int, seed: int) -> Batch:
    """A vector and a sequence that both tell a class and a number; some parts are missing."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 4, examples)
    vector = rng.normal(size=(examples, 6)) + 2 * np.eye(6)[kind]
    lengths = rng.integers(2, 8, examples).astype(np.int32)
    sequence = rng.normal(size=(examples, 7, 3)) + kind[:, None, None]
    here = rng.random((2, examples)) < 0.8
    here[0] |= ~here[1]
    labeled = rng.random((2, examples)) < [[0.9], [0.6]]
    return Batch(
        inputs={"vector": vector.astype(np.float32), "sequence": sequence.astype(np.float32)},
        present={"vector": here[0], "sequence": here[1]},
        lengths={"sequence": lengths},
        targets={
            "kind": kind.astype(np.int32),
            "size": (kind + 0.1 * rng.normal(size=examples)).astype(np.float32),
        },
        labeled={"kind": labeled[0], "size": labeled[1]},
    )


def toy_dataset(train: int = 128) -> Dataset:
    sizes = {"train": train, "validation": 50, "test": 60}
    return Dataset(
        "toy",
        {"vector": Modality((6,)), "sequence": Modality((7, 3), sequence=True)},
        {"kind": Task("classification", tuple("abcd")), "size": Task("regression")},
        {name: Arrays(toy_batch(n, seed)) for seed, (name, n) in enumerate(sizes.items())},
    )


def toy_model(fusion=None, **options) -> Model:
    return Model(
        encoders={"vector": MLPEncoder((8,)), "sequence": RecurrentEncoder(width=5)},
        fusion=fusion or Concat(),
        heads={"kind": Classification(4), "size": Regression(mean=1.5, scale=1.1)},
        **{"sharing": HardSharing((8,)), **options},
    )


def toy_experiment(**options) -> Experiment:
    defaults = {
        "data": toy_dataset(),
        "model": toy_model(),
        "optimizer": optax.adam(1e-2),
        "epochs": 3,
        "batch_size": 16,
        "eval_batch_size": 32,
        "steps_per_dispatch": 4,
    }
    return Experiment(**(defaults | options))


@pytest.fixture(scope="session")
def toy():
    """The toy's makers: toy.batch(examples, seed), toy.model(...), toy.experiment(...)."""

    class Toy:
        batch = staticmethod(toy_batch)
        dataset = staticmethod(toy_dataset)
        model = staticmethod(toy_model)
        experiment = staticmethod(toy_experiment)

    return Toy


@pytest.fixture(params=["in turn", "at once"])
def seeds_run(request, monkeypatch):
    """Runs a program's replicas both ways, of which a platform chooses one."""
    platforms = {jax.default_backend()} if request.param == "in turn" else set()
    monkeypatch.setattr(parallel, "SEQUENTIAL_PLATFORMS", platforms)
