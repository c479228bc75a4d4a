"""Images as viewers show them: levels, orientation, opacity, palettes, formats and sizes."""

import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from mmjax.data import Image
from mmjax.data.load.decode import UnreadableError

RAMP = np.linspace(0, 65535, 48).reshape(6, 8).astype(np.uint16)
COLORS = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)


def save(folder, name, picture, **options):
    if isinstance(picture, np.ndarray):
        picture = PIL.Image.fromarray(picture)
    picture.save(folder / name, **options)
    return name


def read(folder, name, spec=None, learned=None):
    spec = spec or Image("c")
    learned = spec.learn([[name]], folder) if learned is None else learned
    return spec.read_cells([name], folder, learned)


@pytest.mark.parametrize("suffix", ["png", "tif", "jp2"])
def test_sixteen_bits_keep_their_levels(tmp_path, suffix):
    name = save(
        tmp_path, f"a.{suffix}", RAMP, **({"irreversible": False} if suffix == "jp2" else {})
    )
    np.testing.assert_array_equal(read(tmp_path, name)[:, :, 0], RAMP)
    color = read(tmp_path, name, Image("c", channels=3))
    assert color.dtype == np.uint16 and (color == RAMP[:, :, None]).all()
    np.testing.assert_array_equal(read(tmp_path, name, Image("c", bits=8))[:, :, 0], RAMP // 257)


def test_bits_are_those_of_train_or_given(tmp_path):
    dark, gray = save(tmp_path, "d.png", RAMP), save(tmp_path, "g.png", COLORS[:, :, 0])
    widened = read(tmp_path, gray, learned={"bits": 16})
    np.testing.assert_array_equal(widened[:, :, 0], 257 * COLORS[:, :, 0].astype(np.uint16))
    with pytest.raises(ValueError, match=r"d\.png has 16 bits .*, others have 8; give .* bits=16"):
        read(tmp_path, dark, learned={"bits": 8})
    assert Image("c").learn([["gone.png", dark, gray]], tmp_path) == {"bits": 16}
    assert Image("c", bits=8).learn([[dark]], tmp_path) == {}


def write_png_of_deep_colors(path):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + np.arange(9, dtype=">u2").tobytes() for _ in range(2))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)


def test_levels_that_would_be_lost_are_refused(tmp_path):
    write_png_of_deep_colors(tmp_path / "deep.png")
    save(tmp_path, "float.tif", RAMP.astype(np.float32))
    save(tmp_path, "wide.tif", RAMP.astype(np.int32))
    for name, message in (
        ("deep.png", r"deep\.png has several channels of 16 bits, .* give bits=8"),
        ("float.tif", "has 32 bits per channel"),
        ("wide.tif", "has 32 bits per channel"),
    ):
        with pytest.raises(UnreadableError, match=message):
            read(tmp_path, name)
    assert read(tmp_path, "deep.png", Image("c", bits=8)).shape == (2, 3, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_as_their_exif_data_say(tmp_path, orientation):
    upright = COLORS
    # How a camera stores an upright picture: the inverse of what the orientation asks viewers for.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    for suffix in ("png", "tif"):
        name = save(tmp_path, f"{orientation}.{suffix}", np.ascontiguousarray(stored), exif=exif)
        np.testing.assert_array_equal(read(tmp_path, name), upright)
        gray = np.ascontiguousarray(stored[..., 0])
        name = save(tmp_path, f"gray-{orientation}.{suffix}", gray, exif=exif)
        np.testing.assert_array_equal(read(tmp_path, name), upright[..., :1])


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "tif", "webp", "jp2", "jpg"])
def test_formats_are_known_by_their_first_bytes(tmp_path, suffix):
    flat = np.full((8, 8, 3), 128, np.uint8)
    save(tmp_path, f"a.{suffix}", flat)
    (tmp_path / f"a.{suffix}").rename(tmp_path / "a.png")
    np.testing.assert_allclose(read(tmp_path, "a.png").astype(int), flat, atol=2)


def test_opacity_is_kept_or_laid_over_white(tmp_path):
    clear = np.zeros((2, 2, 4), np.uint8)
    clear[0, 0] = (200, 100, 0, 255)
    clear[1, 1] = (200, 100, 0, 51)  # a fifth
    name = save(tmp_path, "a.png", clear)
    np.testing.assert_array_equal(read(tmp_path, name), clear)
    color = read(tmp_path, name, Image("c", channels=3))
    assert color[0, 0].tolist() == [200, 100, 0] and color[0, 1].tolist() == [255, 255, 255]
    np.testing.assert_allclose(color[1, 1].astype(int), [244, 224, 204], atol=1)
    assert read(tmp_path, name, Image("c", channels=1))[0, 1].tolist() == [255]
    gray = save(tmp_path, "la.png", PIL.Image.new("LA", (2, 2), (7, 0)))
    assert read(tmp_path, gray).shape == (2, 2, 4)
    assert (read(tmp_path, gray, Image("c", channels=1)) == 255).all()


def test_palettes_one_bit_and_cmyk_become_color_or_gray(tmp_path):
    palette = PIL.Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    assert read(tmp_path, save(tmp_path, "p.png", palette)).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    save(tmp_path, "t.png", palette, transparency=1)
    assert read(tmp_path, "t.png").tolist() == [[[255, 0, 0, 255], [0, 0, 255, 0]]]
    assert read(tmp_path, "t.png", Image("c", channels=3))[0, 1].tolist() == [255, 255, 255]
    bits = save(tmp_path, "b.png", np.array([[True, False]]))
    assert read(tmp_path, bits).tolist() == [[[255], [0]]]
    ink = save(tmp_path, "k.tif", PIL.Image.new("CMYK", (1, 1), (0, 255, 255, 0)))
    assert read(tmp_path, ink).tolist() == [[[255, 0, 0]]]


def test_fits_resize_crop_or_pad(tmp_path):
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = 250  # the middle half
    name = save(tmp_path, "w.png", wide)
    resize, crop, pad = (
        read(tmp_path, name, Image("c", size=(4, 4), fit=fit))[:, :, 0]
        for fit in ("resize", "crop", "pad")
    )
    assert (crop == 250).all()
    assert (pad[0] == 0).all() and (pad[3] == 0).all() and pad[1:3].max() > 100
    assert resize[:, 0].max() < 100 < resize[:, 1].min()
    deep = save(tmp_path, "d.png", RAMP)
    for fit in ("resize", "crop", "pad"):
        assert read(tmp_path, deep, Image("c", size=(3, 5), fit=fit)).dtype == np.uint16
    with pytest.raises(ValueError, match="has no fit 'stretch'"):
        read(tmp_path, name, Image("c", size=(4, 4), fit="stretch"))


def test_images_of_several_sizes_need_a_size(load, tmp_path):
    for i in range(4):
        save(tmp_path, f"{i}.png", COLORS[: 3 + i])
    names = [f"{i}.png" for i in range(4)]
    with pytest.raises(ValueError, match=r"line 3: modality 'photo' has shape .*size=\(height, "):
        load({"photo": names}, {"photo": "photo"})
    data = load({"photo": names}, {"photo": Image("photo", size=(4, 4))})
    assert data.modalities["photo"].shape == (4, 4, 3)


def test_deep_pixels_are_brought_to_one():
    import jax.numpy as jnp

    from mmjax.encoders.mlp import to_float

    assert to_float(jnp.array([0, 65535, 13107], jnp.uint16)).tolist() == pytest.approx([0, 1, 0.2])
