"""A cached pass gives the same data set; what changed is read again; a stopped pass continues."""

import jax
import numpy as np
import PIL.Image
import pytest

from mmjax.config import trust
from mmjax.data import Image, LabelSet, Mask, Numbers, Value, from_table
from mmjax.data.load import scan_cache, scan_split

NUMBER = 20
INPUTS = {"photo": Image("photo"), "body": Numbers(("a", "b"))}
TARGETS = {"y": "y", "z": Value("z"), "tags": LabelSet("tags")}


@pytest.fixture
def table(tmp_path):
    rng, rows = np.random.default_rng(0), ["photo,a,b,y,z,tags"]
    for i in range(NUMBER):
        PIL.Image.fromarray(rng.integers(0, 256, (3, 4, 3)).astype(np.uint8)).save(
            tmp_path / f"{i}.png"
        )
        numbers = f"{'' if i == 4 else rng.normal() + 1e6},{i / 7}"
        rows.append(f"{i}.png,{numbers},{i % 2},{i / 3},{'x;y' if i % 3 else '[]'}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    return {"train": tmp_path / "t.csv"}


@pytest.fixture
def reads(monkeypatch):
    """Counts the images that are read; passes keep their result after every second example."""
    counts = []
    read = Image.read_cells

    def count(self, cells, folder, learned):
        counts.append(cells[0])
        return read(self, cells, folder, learned)

    monkeypatch.setattr(Image, "read_cells", count)
    monkeypatch.setattr(scan_split, "_CHUNK_EXAMPLES", 2)
    monkeypatch.setattr(scan_cache, "_SECONDS_BETWEEN_WRITES", -1.0)
    return counts


def load(table, folder, targets=TARGETS, **options):
    options = {"in_memory": False, "scan_cache": folder, "name": str(folder)} | options
    return from_table(table, INPUTS, targets, **options)


def take(data):
    return data.splits["train"].take(np.arange(len(data.splits["train"])))


def test_the_pass_is_not_repeated_and_gives_the_same(table, tmp_path, reads, capsys):
    right = load(table, None, in_memory=True)
    first = load(table, tmp_path / "cache")
    reads.clear()
    again = load(table, tmp_path / "cache")
    assert not reads and "20 of 20 examples are in the cache" in capsys.readouterr().err
    for data in (first, again):
        assert (data.modalities, data.tasks) == (right.modalities, right.tasks)
        jax.tree.map(np.testing.assert_array_equal, take(data), right.splits["train"].batch)


def test_a_pass_that_was_stopped_continues(table, tmp_path, reads, monkeypatch):
    right = take(load(table, None))
    read = Image.read_cells

    def stop(self, cells, folder, learned):
        if cells[0] == "13.png":
            raise KeyboardInterrupt
        return read(self, cells, folder, learned)

    with monkeypatch.context() as patch:
        patch.setattr(Image, "read_cells", stop)
        with pytest.raises(KeyboardInterrupt):
            load(table, tmp_path / "cache")
    reads.clear()
    data = load(table, tmp_path / "cache")
    assert reads == [f"{i}.png" for i in range(12, NUMBER)]  # two examples at a time
    jax.tree.map(np.testing.assert_array_equal, take(data), right)


@pytest.mark.parametrize("change", ["cell", "file", "kind", "option"])
def test_what_changed_is_read_again(table, tmp_path, reads, change):
    load(table, tmp_path / "cache")
    reads.clear()
    options, targets = {}, dict(TARGETS)
    if change == "cell":
        table["train"].write_text(table["train"].read_text().replace("19.png", "18.png"))
    if change == "file":
        PIL.Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(tmp_path / "7.png")
    if change == "kind":
        targets["tags"] = LabelSet("tags", classes=("x", "y", "z"))
    if change == "option":
        options["standardize"] = ()
    load(table, tmp_path / "cache", targets, **options)
    assert len(reads) == NUMBER


def test_damage_arrays_and_untrusted_runs(table, tmp_path, reads):
    load(table, tmp_path / "cache")
    (stored,) = (tmp_path / "cache").iterdir()
    stored.write_text(stored.read_text().replace("12", "13"))
    reads.clear()
    load(table, tmp_path / "cache")
    assert len(reads) == NUMBER
    for i in range(NUMBER):
        mask = np.full((3, 4), i % 2, np.uint8)
        PIL.Image.fromarray(mask).save(tmp_path / f"{i}.png")
    load(table, tmp_path / "masks", {"m": Mask("photo", classes=("sky", "sea"))})
    assert not (tmp_path / "masks").exists()  # arrays are not kept
    with trust.open_stored_run(trust.Trust()):
        load(table, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(ValueError, match="scan_cache is for in_memory=False"):
        load(table, tmp_path / "cache", in_memory=True)
