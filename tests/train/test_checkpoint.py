"""Checkpoints: exact, whole or not there, and known when damaged."""

import errno
import gc
import logging
import shutil
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.files.disk_space import DiskFullError, is_disk_full
from mmjax.train import checkpoint
from mmjax.train.checkpoint import Checkpoints, hash_arrays

# Orbax leaves coroutines unawaited where it meets damage.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine:RuntimeWarning"
)


class State(NamedTuple):
    """All kinds of leaves that a training state has."""

    step: Any
    params: Any
    rest: Any
    key: Any


def state(seed: int, width: int = 3) -> State:
    """Different in every leaf from that of another seed."""
    draw = np.random.default_rng(seed)
    return State(
        step=jnp.int32(seed),
        params={
            "kernel": jnp.asarray(draw.normal(size=(2, width)), jnp.float32),
            "low": jnp.asarray(draw.normal(size=5), jnp.bfloat16),
        },
        rest=(jnp.asarray(draw.random(4) < 0.5), jnp.uint8(seed), {"empty": ()}),
        key=jax.random.split(jax.random.key(seed), 2),
    )


def raw(tree):
    """Every leaf as (type, shape, bytes), without the code under test."""

    def one(x):
        typed = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(x) if typed else x)
        return str(x.dtype), array.shape, array.tobytes()

    return jax.tree.map(one, tree)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A directory with the checkpoints of the steps 4 and 8."""
    directory = tmp_path_factory.mktemp("pristine")
    checkpoints = Checkpoints(directory)
    for step in (4, 8):
        checkpoints.save(step, state(step))
    checkpoints.close()
    return directory


@pytest.fixture
def copy(pristine, tmp_path):
    """A copy of it to damage."""
    yield shutil.copytree(pristine, tmp_path / "checkpoints")
    gc.collect()  # so that what Orbax left shows here and not in the next test


def test_what_is_restored_is_what_was_saved(pristine):
    checkpoints = Checkpoints(pristine)
    assert checkpoints.steps() == [4, 8]
    found = checkpoints.restore(state(0))
    assert jax.tree.structure(found) == jax.tree.structure(state(8))
    assert raw(found) == raw(state(8))
    assert raw(jax.random.normal(found.key[0], (3,))) == raw(
        jax.random.normal(state(8).key[0], (3,))
    )


def test_it_comes_back_where_the_likeness_lies(copy):
    mesh = jax.make_mesh((4,), ("x",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    found = Checkpoints(copy).restore(jax.device_put(state(0), everywhere))
    assert all(x.sharding.is_equivalent_to(everywhere, x.ndim) for x in jax.tree.leaves(found))
    assert raw(found) == raw(state(8))


def test_an_empty_directory_has_nothing_to_restore(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new" / "deep")
    assert checkpoints.steps() == []
    assert checkpoints.restore(state(0)) is None


@pytest.mark.slow
def test_the_newest_two_are_kept(copy):
    checkpoints = Checkpoints(copy)
    checkpoints.save(12, state(12))
    assert checkpoints.steps() == [8, 12]
    checkpoints.close()
    assert sorted(int(p.name) for p in copy.iterdir()) == [8, 12]
    again = Checkpoints(copy)
    assert again.steps() == [8, 12]
    assert raw(again.restore(state(0))) == raw(state(12))


def test_a_half_written_checkpoint_is_no_checkpoint(copy, caplog):
    """What a killed run leaves is not even damaged: it was never there, and it is cleared away."""
    half = copy / "12.orbax-checkpoint-tmp"
    shutil.copytree(copy / "8", half)
    (half / "_CHECKPOINT_METADATA").unlink()
    shutil.rmtree(half / "state" / "d")
    checkpoints = Checkpoints(copy)
    assert checkpoints.steps() == [4, 8]
    assert raw(checkpoints.restore(state(0))) == raw(state(8))
    assert caplog.text == ""
    checkpoints.save(12, state(12))
    checkpoints.close()
    assert sorted(p.name for p in copy.iterdir()) == ["12", "8"]
    assert raw(Checkpoints(copy).restore(state(0))) == raw(state(12))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


def files(directory):
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    "damage", [flip, *(pytest.param(f, marks=pytest.mark.slow) for f in (truncate, empty, remove))]
)
def test_damage_to_any_file_is_harmless_or_found_out(pristine, tmp_path, caplog, damage):
    """Never is anything but the newest or, with a warning, the one before it restored."""
    verdicts = {}
    for i, name in enumerate(files(pristine / "8")):
        directory = shutil.copytree(pristine, tmp_path / str(i) / "checkpoints")
        damage(directory / "8" / name)
        caplog.clear()
        checkpoints = Checkpoints(directory)
        found = checkpoints.restore(state(0))
        warned = "The checkpoint of step 8 is damaged" in caplog.text
        assert raw(found) == raw(state(4) if warned else state(8)), name
        if warned:
            aside = tmp_path / str(i) / "damaged-8"
            assert aside.is_dir() and str(aside) in caplog.text
            assert checkpoints.steps() == [4]
        verdicts[name] = warned
    gc.collect()
    # The note with the digest and the arrays themselves can never go without.
    assert verdicts["_CHECKPOINT_METADATA"] or damage is flip
    assert verdicts["state/manifest.ocdbt"]
    assert any(warned for name, warned in verdicts.items() if name.startswith("state/d/"))


def test_a_wrong_value_is_found_out_by_the_digest(copy, caplog):
    """A checkpoint that reads well but holds other numbers than its note says."""
    shutil.rmtree(copy / "8" / "state")
    shutil.copytree(copy / "4" / "state", copy / "8" / "state")
    found = Checkpoints(copy).restore(state(0))
    assert raw(found) == raw(state(4))
    assert "step 8 is damaged (its digest is" in caplog.text


def test_a_run_that_is_only_read_keeps_its_damaged_checkpoint(copy, caplog):
    truncate(copy / "8" / "_CHECKPOINT_METADATA")
    before = files(copy.parent)
    found = Checkpoints(copy).restore(state(0), set_aside=False)
    assert raw(found) == raw(state(4))
    assert f"it is in {copy / '8'}" in caplog.text
    assert files(copy.parent) == before


def test_after_a_damaged_one_the_step_can_be_saved_again(copy):
    truncate(copy / "8" / "_CHECKPOINT_METADATA")
    checkpoints = Checkpoints(copy)
    checkpoints.restore(state(0))
    checkpoints.save(8, state(80))
    checkpoints.close()
    assert raw(Checkpoints(copy).restore(state(0))) == raw(state(80))


def test_where_every_checkpoint_is_damaged_nothing_is_guessed(copy):
    for step in ("4", "8"):
        remove(copy / step / "state" / "manifest.ocdbt")
    with pytest.raises(ValueError) as error:
        Checkpoints(copy).restore(state(0))
    for words in (str(copy), "step 4", "step 8", "damaged", "--workdir"):
        assert words in str(error.value)


def test_checkpoints_of_another_model_are_refused_and_left_alone(copy):
    """It is not they that are wrong: whoever asks with the right model still finds them."""
    with pytest.raises(ValueError, match="belong to another model"):
        Checkpoints(copy).restore(state(0, width=7))
    with pytest.raises(ValueError, match="belong to another model"):
        Checkpoints(copy).restore(state(0)._replace(params={"other": jnp.zeros(3)}))
    assert raw(Checkpoints(copy).restore(state(0))) == raw(state(8))


def test_an_older_one_that_is_damaged_is_in_nobodys_way(copy, caplog):
    (copy / "4" / "_CHECKPOINT_METADATA").write_text('{"no": 1, "custom_metadata": {"a": "b"}}')
    checkpoints = Checkpoints(copy)
    assert raw(checkpoints.restore(state(0))) == raw(state(8))
    assert caplog.text == ""
    checkpoints.save(12, state(12))
    assert checkpoints.steps() == [8, 12]


def test_reading_leaves_alone_what_another_process_is_writing(copy):
    half = copy / "12.orbax-checkpoint-tmp"
    half.mkdir()
    Checkpoints(copy).restore(state(0))
    assert half.is_dir()


def test_the_warning_goes_to_the_log_of_mmjax(copy, caplog):
    truncate(copy / "8" / "_CHECKPOINT_METADATA")
    Checkpoints(copy).restore(state(0))
    ours = [r for r in caplog.records if r.name == "mmjax"]
    assert [r.levelno for r in ours] == [logging.WARNING]


def same_digest(one, other):
    return hash_arrays(one) == hash_arrays(other)


def test_digest_knows_values_types_shapes_and_names():
    x = np.arange(6, dtype=np.float32)
    base = {"a": x, "b": np.int32(3)}
    assert same_digest(base, {"b": jnp.int32(3), "a": jnp.asarray(x)})
    others = [
        base | {"a": x + np.float32([0, 0, 0, 0, 0, 1e-6])},
        base | {"a": x.astype(np.float16)},
        base | {"a": x.view(np.int32)},
        base | {"a": x.reshape(2, 3)},
        base | {"a": x.reshape(3, 2)},
        {"a": x, "c": np.int32(3)},
        {"a": x},
        base | {"c": np.zeros(0)},
    ]
    assert len({hash_arrays(tree) for tree in [base, *others]}) == len(others) + 1
    assert not same_digest({"a": np.float32(0.0)}, {"a": np.float32(-0.0)})


def test_digest_knows_keys_and_where_arrays_lie_does_not_matter():
    assert same_digest({"k": jax.random.key(1)}, {"k": jax.random.key(1)})
    assert not same_digest({"k": jax.random.key(1)}, {"k": jax.random.key(2)})
    assert not same_digest({"k": jax.random.key(1)}, {"k": jax.random.key_data(jax.random.key(1))})
    x = np.arange(12.0).reshape(3, 4)
    assert same_digest({"a": x.T}, {"a": np.ascontiguousarray(x.T)})
    assert not same_digest({"a": x.T}, {"a": x})


def wrapped(error, explicit=True):
    """The error below two others, as a library might raise it."""
    try:
        try:
            try:
                raise error
            except Exception as cause:
                raise RuntimeError("could not write") from cause
        except RuntimeError as middle:
            if explicit:
                raise ValueError("saving failed") from middle
            raise ValueError("saving failed")  # noqa: B904
    except ValueError as outer:
        return outer


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "full"), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (RuntimeError("UNKNOWN: write failed: No space left on device"), True),
        (ValueError("RESOURCE_EXHAUSTED: Error writing file"), True),
        (OSError(errno.EACCES, "not allowed"), False),
        (ValueError("bad shape"), False),
    ],
)
def test_a_full_disk_is_known_through_any_wrapping(error, full, explicit):
    assert is_disk_full(error) is full
    assert is_disk_full(wrapped(error, explicit)) is full
    assert not is_disk_full(None)


def test_other_errors_of_saving_are_not_called_a_full_disk(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "not allowed")

    monkeypatch.setattr(checkpoint, "require_disk_space", refuse)
    with pytest.raises(PermissionError):
        Checkpoints(tmp_path).save(1, state(1))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one mebibyte, where the tests may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, timeout=30)
    except OSError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True, timeout=30)


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_disk_that_is_really_full(small_disk, monkeypatch, foreseen):
    """The error says so, and what was there stays; unforeseen, Orbax itself meets the end."""
    if not foreseen:
        monkeypatch.setattr(checkpoint, "require_disk_space", lambda *_: None)
    checkpoints = Checkpoints(small_disk / "checkpoints")
    big = State(jnp.int32(2), {"x": jax.random.bits(jax.random.key(0), (300_000,))}, (), ())
    little = jax.tree.map(lambda x: x[:10] if x.ndim else x, big)
    checkpoints.save(1, little)
    with pytest.raises(DiskFullError) as error:
        checkpoints.save(2, big)
    assert error.value.errno == errno.ENOSPC
    for words in ("step 2", "1200004 bytes", str(small_disk), "checkpoints/1.", "--resume"):
        assert words in str(error.value)
    again = Checkpoints(small_disk / "checkpoints")
    assert again.steps() == [1]
    assert raw(again.restore(little)) == raw(little)
    again.save(2, little)
    assert again.steps() == [1, 2]


LIMITED = """
import resource, sys
from pathlib import Path
import jax.numpy as jnp
from mmjax.files.disk_space import DiskFullError
from mmjax.train.checkpoint import Checkpoints

checkpoints = Checkpoints(Path(sys.argv[1]))
tree = {str(i): jnp.arange(i, i + 50_000.0) for i in range(20)}
checkpoints.save(1, tree)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
for step in (2, 3, 4):
    try:
        checkpoints.save(step, tree)
    except DiskFullError as error:
        print(error)
"""


def test_a_limit_of_file_sizes_is_said_in_a_line_and_keeps_the_last_checkpoint(tmp_path):
    """With no tracebacks of the writes that had not ended when one of them failed."""
    code = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(code, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for step, line in zip((2, 3, 4), done.stdout.splitlines(), strict=True):
        assert f"no space for the checkpoint of step {step}" in line
        assert f"The last good checkpoint is {tmp_path.resolve() / '1'}." in line
    assert Checkpoints(tmp_path).steps() == [1]
