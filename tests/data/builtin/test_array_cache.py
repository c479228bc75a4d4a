import pwd

import numpy as np
import pytest

from mmjax.config import ConfigError
from mmjax.data.builtin.array_cache import find_data_folder, load_or_build_arrays
from mmjax.data.builtin.generation_config import GenerationConfig

RECIPE = GenerationConfig(dataset="ramp", version="1.2.3", seed=3, sizes={"train": 4, "test": 2})


def arrays():
    def split(size):
        frames = [np.full((i % 3, 2), i, np.uint8) for i in range(size)]
        share = np.linspace(0, 1, size, dtype=np.float32)
        return {"inputs": {"frames": frames, "share": share}, "even": np.arange(size) % 2 == 0}

    return {name: split(size) for name, size in RECIPE.sizes.items()}


def check(found):
    for name, split in arrays().items():
        for one, other in zip(
            found[name]["inputs"]["frames"], split["inputs"]["frames"], strict=True
        ):
            np.testing.assert_array_equal(one, other, strict=True)
        for one, other in (
            (found[name]["inputs"]["share"], split["inputs"]["share"]),
            (found[name]["even"], split["even"]),
        ):
            np.testing.assert_array_equal(one, other, strict=True)


def never():
    raise AssertionError("the records were read")


@pytest.fixture
def folder(tmp_path):
    """Where the data set lies, with what TFDS writes last."""
    folder = tmp_path / "ramp" / RECIPE.name / "1.2.3"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_records_are_read_once(tmp_path, folder):
    check(load_or_build_arrays(RECIPE, tmp_path, arrays))
    check(load_or_build_arrays(RECIPE, tmp_path, never))
    assert sorted(path.name for path in folder.iterdir()) == ["arrays.npz", "dataset_info.json"]


def test_the_folder_is_tfds_default(tmp_path, folder, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    load_or_build_arrays(RECIPE, tmp_path, arrays)
    check(load_or_build_arrays(RECIPE, None, never))
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "tensorflow_datasets").mkdir()
    (tmp_path / "ramp").rename(tmp_path / "tensorflow_datasets" / "ramp")
    check(load_or_build_arrays(RECIPE, None, never))


def test_a_damaged_file_is_written_again(tmp_path, folder):
    load_or_build_arrays(RECIPE, tmp_path, arrays)
    whole = (folder / "arrays.npz").read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"\0" * len(whole)):
        (folder / "arrays.npz").write_bytes(damaged)
        check(load_or_build_arrays(RECIPE, tmp_path, arrays))
        check(load_or_build_arrays(RECIPE, tmp_path, never))


def test_arrays_of_a_set_that_is_not_whole_are_not_used(tmp_path, folder):
    load_or_build_arrays(RECIPE, tmp_path, arrays)
    (folder / "dataset_info.json").unlink()
    with pytest.raises(AssertionError, match="records were read"):
        load_or_build_arrays(RECIPE, tmp_path, never)


def test_where_nothing_can_be_written_the_records_are_read(tmp_path, folder, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        check(load_or_build_arrays(RECIPE, tmp_path, arrays))
    assert [path.name for path in folder.iterdir()] == ["dataset_info.json"]
    check(load_or_build_arrays(RECIPE, tmp_path / "elsewhere", arrays))


def test_empty_sequences_of_wide_steps_are_read_back(folder):
    """Their header declares no bytes, but a limit counts them as one row."""
    empty = np.zeros((0, 4000), np.float32)
    splits = {"train": {"x": [empty, empty], "y": np.arange(2)}}
    data_dir = folder.parents[2]
    load_or_build_arrays(RECIPE, data_dir, lambda: splits)
    found = load_or_build_arrays(RECIPE, data_dir, never)["train"]
    assert [x.shape for x in found["x"]] == [(0, 4000)] * 2 and found["y"].tolist() == [0, 1]


def test_a_user_without_a_home_must_choose_a_folder(tmp_path, monkeypatch):
    def no_entry(_):
        raise KeyError("uid not found")

    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"home that does not exist; choose .* TFDS_DATA_DIR"):
        load_or_build_arrays(RECIPE, None, never)
    assert find_data_folder(tmp_path) == tmp_path
    assert not any(tmp_path.iterdir())
