"""idx files: what is written by hand comes back, and what is wrong is said where it is."""

import gzip
import struct

import numpy as np
import pytest

from mmjax.data.builtin.originals.idx import read_idx

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array):
    """An array in the format of LeCun's page, by `struct`, value by value."""
    code = CODES[array.dtype.str[1:]]
    letter = {"u1": "B", "i1": "b", "i2": "h", "i4": "i", "f4": "f", "f8": "d"}[array.dtype.str[1:]]
    head = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return head + struct.pack(f">{array.size}{letter}", *array.ravel().tolist())


@pytest.fixture
def file(tmp_path):
    """Writes bytes to a file and gives its path."""

    def write(content, name="some-idx"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 3), ()])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_every_type_and_shape_comes_back_in_native_order(file, dtype, shape, pack):
    values = (100 * np.random.default_rng(0).standard_normal(shape)).astype(dtype)
    found = read_idx(file(pack(idx_bytes(values))))
    assert found.dtype == np.dtype(dtype)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, values)


def test_bytes_of_the_published_format():
    """The first 16 bytes of the published training images."""
    head = idx_bytes(np.zeros((3, 28, 28), np.uint8))[:16]
    assert head == bytes.fromhex("00000803 00000003 0000001c 0000001c")


IMAGES = idx_bytes(np.arange(12, dtype=np.uint8).reshape(3, 2, 2))  # 16 + 12 bytes
# Without the time of writing: every process of the suite must name the tests below alike.
ZIPPED = gzip.compress(IMAGES, mtime=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated at offset 0; an idx file starts with 4 bytes"),
        (b"\0\0\x08", "truncated at offset 3"),
        (b"\x89PNG" + IMAGES, "at offset 0 are the bytes 89 50; idx starts with 00 00"),
        (b"\0\0\x0a\x01" + IMAGES[4:], "at offset 2 the type is 0a; idx knows 08, 09"),
        (IMAGES[:13], "truncated at offset 13; the sizes of 3 dimensions end at offset 16"),
        (IMAGES[:-1], r"truncated at offset 27; 3 x 2 x 2 values of 1 bytes end at offset 28"),
        (IMAGES + b"ab", "more bytes follow the end of the array, offset 28"),
        (b"\0\0\x0e\x03" + b"\xff" * 12 + bytes(64), "its size is .* give max_bytes="),
        (ZIPPED[:-9], "gzip data are damaged after offset"),
        (ZIPPED[:-4] + b"\1\0\0\0", "gzip data are damaged after offset 28"),
        (ZIPPED[:12] + b"\xff" * 20, "at offset 0 are the bytes"),  # some still unzip
        (ZIPPED[:5], "gzip data are damaged after offset 0"),
        (gzip.compress(IMAGES[:20], mtime=0), "truncated at offset 20"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_offset(file, content, message):
    with pytest.raises(ValueError, match=f"some-idx: .*{message}"):
        read_idx(file(content))


def test_any_truncation_is_refused(file):
    for end in range(len(IMAGES)):
        with pytest.raises(ValueError, match=f"truncated at offset {end};"):
            read_idx(file(IMAGES[:end]))


@pytest.mark.parametrize("shape", [(3,), (None, 28, 28), (4, 2, 2), (None, None, None, None)])
def test_another_shape_is_refused(file, shape):
    with pytest.raises(ValueError, match="at offset 4 the shape is 3 x 2 x 2; it must be"):
        read_idx(file(IMAGES), shape=shape)


@pytest.mark.parametrize("shape", [(3, 2, 2), (None, 2, 2), (None, None, None)])
def test_the_shape_that_was_asked_for_passes(file, shape):
    assert read_idx(file(IMAGES), shape=shape).shape == (3, 2, 2)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"File .*nothing-here does not exist"):
        read_idx(tmp_path / "nothing-here")
