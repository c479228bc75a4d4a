import dataclasses
import hashlib
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mmjax.data.builtin.tfds_builder import Builder, prepare_dataset, read_arrays

SIZES = {"train": 2500, "test": 7}


@dataclasses.dataclass(eq=False, kw_only=True)
class RampConfig(tfds.core.BuilderConfig):
    name: str = "all"
    fail_at: int = 10_000


class Ramp(Builder):
    """Every feature is known from the example's number."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "inputs": {
                "pixels": tfds.features.Tensor(
                    shape=(3, 2), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
                ),
                "plain": tfds.features.Tensor(shape=(2,), dtype=np.int32),
                "half": tfds.features.Tensor(
                    shape=(2,), dtype=np.float32, encoding=tfds.features.Encoding.BYTES
                ),
            },
            "frames": tfds.features.Tensor(
                shape=(None, 2), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
            ),
            "number": np.int64,
            "share": np.float32,
            "even": np.bool_,
            "kind": tfds.features.ClassLabel(names=["a", "b", "c"]),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {s: self.numbered(s, self._generate_examples(n), n) for s, n in SIZES.items()}

    def _generate_examples(self, size):
        for i in range(size):
            if i == self.builder_config.fail_at:
                raise KeyboardInterrupt
            yield {
                "inputs": {
                    "pixels": (np.arange(6).reshape(3, 2) + i).astype(np.uint8),
                    "plain": np.array([i, -i], np.int32),
                    "half": np.array([i / 2, -i / 2], np.float32),
                },
                "frames": np.full((i % 4, 2), i % 256, np.uint8),
                "number": 10**10 + i,
                "share": i / size,
                "even": i % 2 == 0,
                "kind": "abc"[i % 3],
            }


CODE = """
import sys
sys.path.insert(0, "tests/data/builtin")
from test_tfds_builder import Ramp, RampConfig
from mmjax.data.builtin.tfds_builder import prepare_dataset

usual = Ramp._generate_examples

def slowly(self, size):
    for i, example in enumerate(usual(self, size)):
        if i == 3:
            print("made", flush=True)
            sys.stdin.readline()
        yield example

Ramp._generate_examples = slowly
prepare_dataset(Ramp, RampConfig(), data_dir=sys.argv[1])
"""


def start(folder):
    """Starts a process of its own that prepares the data, and rests until it is written to."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", CODE, str(folder)]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def made(folder):
    return prepare_dataset(Ramp, RampConfig(), data_dir=folder)


def records(folder):
    paths = sorted(pathlib.Path(folder).rglob("*.array_record*"))
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def leftovers(folder):
    return list(pathlib.Path(folder).rglob("incomplete.*"))


@pytest.fixture(scope="module")
def ramp(tmp_path_factory):
    return made(tmp_path_factory.mktemp("ramp"))


@pytest.mark.parametrize("split", SIZES)
def test_arrays_are_the_examples_stacked(ramp, split):
    arrays, size = read_arrays(ramp, split), SIZES[split]
    i = np.arange(size)
    inputs = arrays["inputs"]
    np.testing.assert_array_equal(
        inputs["pixels"], (np.arange(6).reshape(1, 3, 2) + i[:, None, None]).astype(np.uint8)
    )
    np.testing.assert_array_equal(inputs["plain"], np.stack([i, -i], 1))
    np.testing.assert_array_equal(inputs["half"], np.stack([i / 2, -i / 2], 1))
    np.testing.assert_array_equal(arrays["number"], 10**10 + i)
    np.testing.assert_array_equal(arrays["share"], (i / size).astype(np.float32))
    np.testing.assert_array_equal(arrays["even"], i % 2 == 0)
    np.testing.assert_array_equal(arrays["kind"], i % 3)
    types = [a.dtype for a in (*inputs.values(), arrays["number"], arrays["even"])]
    assert types == [np.uint8, np.int32, np.float32, np.int64, np.bool_]


def test_arrays_are_tfds_own_reading(ramp):
    """Also where lengths vary, down to nothing."""
    arrays = read_arrays(ramp, "test")
    for row, example in enumerate(ramp.as_data_source("test")):
        for name, value in example.pop("inputs").items():
            np.testing.assert_array_equal(value, arrays["inputs"][name][row])
        for name, value in example.items():
            np.testing.assert_array_equal(value, arrays[name][row], strict=name == "frames")
    assert [len(frames) for frames in arrays["frames"]] == [i % 4 for i in range(SIZES["test"])]


def test_the_files_are_the_same_everywhere(ramp, tmp_path):
    made(tmp_path)
    found = records(tmp_path)
    assert len(found) == 2 and found == records(ramp.data_dir)


def test_progress_is_told_by_its_right_name_and_not_on_the_output(tmp_path, capfd):
    made(tmp_path)
    out, err = capfd.readouterr()
    assert out == ""
    assert f"Preparing ramp/all/1.0.0 in {tmp_path}" in err
    assert "Making ramp: train" in err and "2,500 of 2,500" in err
    assert "ownload" not in err and "WARNING" not in err
    made(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_an_interrupted_preparation_starts_clean(ramp, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        prepare_dataset(Ramp, RampConfig(fail_at=5), data_dir=tmp_path)
    assert not records(tmp_path) and not leftovers(tmp_path)
    made(tmp_path)
    assert records(tmp_path) == records(ramp.data_dir)


def test_what_a_killed_preparation_left_is_removed(ramp, tmp_path):
    killed = start(tmp_path)
    assert killed.stdout.readline() == "made\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(leftovers(tmp_path)) == 1
    made(tmp_path)
    assert not leftovers(tmp_path) and records(tmp_path) == records(ramp.data_dir)


@pytest.mark.slow
def test_of_two_at_once_one_prepares_and_the_other_waits(ramp, tmp_path):
    first = start(tmp_path)
    assert first.stdout.readline() == "made\n"
    second = start(tmp_path)
    while not (waiting := second.stderr.readline()).startswith("Waiting"):
        assert waiting, "the second process ended without waiting"
    assert "another process: it prepares ramp/all/1.0.0" in waiting
    assert len(leftovers(tmp_path)) == 1  # the living one's, which the second leaves alone
    first.communicate("\n\n")
    assert "made" not in second.communicate()[0]
    assert first.returncode == second.returncode == 0
    assert not leftovers(tmp_path) and records(tmp_path) == records(ramp.data_dir)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/ramp/all cannot be written to"):
        made(tmp_path / "file")
