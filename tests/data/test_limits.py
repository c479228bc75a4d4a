"""Files that declare more than they may: refused before memory is allocated, naming the option."""

import contextlib
import gzip
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from mmjax.data import Audio, Image, Label, from_arrays, from_table
from mmjax.data.audio.wav import read_wav
from mmjax.data.builtin.originals.fsdd import read_fsdd
from mmjax.data.builtin.originals.idx import read_idx
from mmjax.data.kinds.media.audio import read_recording
from mmjax.data.kinds.media.image import decode_image
from mmjax.data.limits import LimitError, format_size
from mmjax.data.load.arrays.npz import read_npz
from mmjax.data.load.decode import UnreadableError
from mmjax.data.load.tables.table_files import read_table


@contextlib.contextmanager
def little_memory():
    """Fails if a reader allocates more than 40 MB."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


def npy_header(shape, descr="<f8"):
    """The header of format 1.0 by hand, so that it may lie."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def npz(path, content, name="x.npy", compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(name, content)
    return path


def with_directory_size(path, size):
    """Changes the unpacked size that the zip directory has of the only member."""
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = struct.pack("<I", size)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy_header((10**11,)) + bytes(800), "'x' declares .*745.1 GiB, but the zip directory has"),
        (npy_header((-1, 8)) + bytes(64), r"'x' has the shape \(-1, 8\); no size may be negative"),
        (npy_header((2**40, 0)), "its size is 8.0 TiB.* give max_bytes=8796093022208 or more"),
        (npy_header((4,), "|O") + b"cos\nsystem\n", "'x' holds Python objects"),
        (npy_header("(" * 4000 + ")" * 4000), "cannot be read|Cannot parse"),
        (b"\x93NUMPY\x09\x00" + bytes(90), r"'x' is of format \(9, 0\)"),
        (b"nothing", "magic"),
    ],
)
def test_an_npz_that_declares_what_it_has_not_is_refused(tmp_path, content, message):
    path = npz(tmp_path / "bomb.npz", content)
    with little_memory(), pytest.raises(ValueError, match=rf"bomb\.npz: .*({message})"):
        read_npz(path, ["x"])
    with pytest.raises(ValueError, match=rf"bomb\.npz: .*({message})"):
        from_arrays({"train": path}, ("x",), ("x",))


def test_an_npz_directory_that_lies_is_refused(tmp_path):
    shape = (400_000_000,)
    path = npz(tmp_path / "a.npz", npy_header(shape, "|u1") + bytes(1000))
    path = with_directory_size(path, len(npy_header(shape, "|u1")) + shape[0])
    with pytest.raises(ValueError, match=r"a\.npz: 'x' declares 381\.5 MiB, to which its .* B can"):
        read_npz(path, ["x"])


def test_the_limit_of_an_npz_is_an_option_and_counts_what_is_wanted_only(tmp_path):
    path = tmp_path / "two.npz"
    np.savez_compressed(path, x=np.zeros(1000), y=np.zeros(200))
    with pytest.raises(LimitError, match=r"two\.npz: its size is 9\.4 KiB, more than the limit of"):
        read_npz(path, max_bytes=9599)
    assert sorted(read_npz(path, max_bytes=9600)) == ["x", "y"]
    assert read_npz(path, ["y"], max_bytes=1600)["y"].shape == (200,)
    split = {"train": path}
    with pytest.raises(LimitError, match=r"give max_bytes=9600 or more"):
        from_arrays(split, ("x",), ("y",), max_bytes=100)


def test_an_encrypted_npz_is_refused(tmp_path):
    path = npz(tmp_path / "a.npz", npy_header((2,)) + bytes(16))
    content = bytearray(path.read_bytes())
    for start, place in ((0, 6), (content.rindex(b"PK\x01\x02"), 8)):
        content[start + place] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz: .*encrypted"):
        read_npz(path)


def idx_header(*sizes):
    return struct.pack(f">HBB{len(sizes)}I", 0, 8, len(sizes), *sizes)


def zipped_zeros(head, size):
    """A gzip file of a header and zeros, made a part at a time."""
    packer, block = zlib.compressobj(9, wbits=31), bytes(1 << 20)
    parts = [packer.compress(head)]
    parts += [packer.compress(block) for _ in range(size >> 20)]
    return b"".join([*parts, packer.flush()])


def test_a_gzipped_idx_is_read_no_further_than_its_header_says(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(zipped_zeros(idx_header(4, 28, 28), 100 << 20))
    with little_memory(), pytest.raises(ValueError, match=r"bomb\.gz: more bytes follow"):
        read_idx(path)
    path.write_bytes(gzip.compress(idx_header(3_000_000, 28, 28)))
    with pytest.raises(ValueError, match=r"bomb\.gz: it is truncated at offset 16; 3000000 x 28"):
        read_idx(path)
    path.write_bytes(gzip.compress(idx_header(2**32 - 1, 28, 28)))
    with pytest.raises(LimitError, match=r"bomb\.gz: its size is 3\.1 TiB.* give max_bytes="):
        read_idx(path)
    path.write_bytes(idx_header(3_000, 28, 28))
    with pytest.raises(LimitError, match=r"the limit of 1\.0 MiB"):
        read_idx(path, max_bytes=1 << 20)
    path.write_bytes(struct.pack(">HBB255I", 0, 8, 255, *[1] * 255) + b"1")
    with pytest.raises(ValueError, match=r"bomb\.gz: at offset 4 the shape is 1 x 1"):
        read_idx(path)


def png(width, height, gray=0):
    """A PNG of one shade of gray, by hand: 13,000 x 13,000 pixels are 164 kB."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer, row = zlib.compressobj(9), b"\0" + bytes([gray]) * width
    rows = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_an_image_is_refused_by_the_pixels_that_its_header_declares(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(13_000, 13_000))
    assert path.stat().st_size < 170_000
    message = r"bomb\.png: its size is 169,000,000 pixels, .* give max_pixels=169000000 or more"
    with little_memory(), pytest.raises(UnreadableError, match=message):
        decode_image(path, Image("x"))
    path.write_bytes(png(40, 30))
    with pytest.raises(UnreadableError, match="1,200 pixels, more than the limit of 1,199"):
        decode_image(path, Image("x", max_pixels=1199))
    assert decode_image(path, Image("x", max_pixels=1200)).shape == (30, 40, 1)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_table_with_a_bomb_names_its_line_or_leaves_it_out(tmp_path, in_memory):
    for i in range(9):
        (tmp_path / f"{i}.png").write_bytes(png(8 + 2 * (i == 4), 8, gray=i))
    rows = [f"{i}.png,{'ab'[i % 2]},{'train' if i < 7 else 'test'}" for i in range(9)]
    path = tmp_path / "t.csv"
    path.write_text("x,y,split\n" + "\n".join(rows) + "\n")

    def make(**options):
        inputs, targets = {"x": Image("x", max_pixels=64)}, {"y": Label("y")}
        return from_table(path, inputs, targets, split="split", in_memory=in_memory, **options)

    with pytest.raises(ValueError, match=r"t\.csv, line 6, 'x': .*4\.png: its size is 80 pixels"):
        make()
    with pytest.warns(UserWarning, match="left out 1 of the 7 examples"):
        assert len(make(skip_unreadable=True).splits["train"]) == 6


def wav(samples, rate=8000, channels=1, data=None):
    size = len(samples) if data is None else data
    frame = 2 * channels
    head = struct.pack("<HHIIHH", 1, channels, rate, frame * rate % 2**32, frame, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", size) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (wav(bytes(200), data=2**32 - 2), "is not a whole WAV file: it declares"),
        (wav(b"\1\0" * 100, rate=2**31 - 1), "has a sample rate of 2147483647 Hz; it must be 1 to"),
        (wav(bytes(2 * 20_000), channels=20_000), "has 20000 channels; it may have at most 64"),
        (wav(bytes(200), channels=0), "is not a whole WAV file"),
    ],
)
def test_a_recording_that_declares_what_it_has_not_is_refused(tmp_path, content, message):
    path = tmp_path / "bomb.wav"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"bomb\.wav {message}"):
        read_wav(path)


def test_a_recording_is_limited_before_and_after_it_is_resampled(tmp_path):
    path = tmp_path / "hole.wav"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a file of one hole
    with pytest.raises(UnreadableError, match=r"hole\.wav: its size is 1\.0 TiB.* give max_bytes="):
        read_recording(path, Audio("x").max_bytes)
    path.write_bytes(wav(b"\1\0" * 1000, rate=1))
    rows = "\n".join("hole.wav," + "ab"[i % 2] for i in range(20))
    (tmp_path / "t.csv").write_text(f"x,y\n{rows}\n")
    with pytest.raises(ValueError, match=r"the recording at 1000000 Hz: its size is 3\.7 GiB"):
        from_table(tmp_path / "t.csv", {"x": Audio("x", sample_rate=10**6)}, {"y": "y"})


def test_an_archive_of_recordings_is_limited_by_what_it_unpacks_to(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for take in range(3):
            archive.writestr(f"7_theo_{take}.wav", bytes(1 << 20))
    for place in (path, tmp_path / "folder"):
        if place != path:
            zipfile.ZipFile(path).extractall(place)
        with pytest.raises(LimitError, match=r"its size is 3\.0 MiB, .* give max_bytes=3145728 or"):
            read_fsdd(place, max_bytes=3 * (1 << 20) - 1)
    with_directory_size(path, 2**32 - 2)
    with pytest.raises(LimitError, match=r"a\.zip: its size is 4\.0 GiB"):
        read_fsdd(path)


def test_a_table_is_limited_by_file_line_and_cell(tmp_path):
    path = tmp_path / "t.csv"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(LimitError, match=r"t\.csv: its size is 1\.0 TiB.* max_bytes="):
        read_table(path, ["x"])
    path.write_bytes(b"x,y\n1,2\n" + b"3" * 5000)
    with pytest.raises(LimitError, match=r"t\.csv, line 3: it is longer than the limit of 4\.9 K"):
        read_table(path, ["x"], max_cell=4999)
    path.write_bytes(b"x,y\n" + b"3" * 200_000 + b",4\n")
    assert len(read_table(path, ["x"]).columns["x"][0]) == 200_000


def test_a_parquet_file_is_limited_by_what_its_cells_unpack_to(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "t.parquet"
    words = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array(np.zeros(500_000, np.int32)), pyarrow.array(["a" * 100_000])
    )
    parquet.write_table(pyarrow.table({"x": words}), path)
    assert path.stat().st_size < 300_000  # of 50 GB
    with pytest.raises(LimitError, match=r"t\.parquet: its size is .* max_bytes="):
        read_table(path, ["x"], max_bytes=1 << 24)
    with pytest.raises(LimitError, match=r"row 0, column 'x': the cell has 97\.7 KiB"):
        read_table(path, ["x"], max_cell=99_999)
    parquet.write_table(pyarrow.table({"x": pyarrow.array(np.zeros(2_000_000))}), path)
    with pytest.raises(LimitError, match=r"t\.parquet: its size is 61\.0 MiB"):
        read_table(path, ["x"], max_bytes=60_000_000)


def test_sizes_are_shown_in_units():
    assert format_size(12) == "12 B"
    assert format_size(3 << 30) == "3.0 GiB"
    assert format_size(10**6, "pixels") == "1,000,000 pixels"
