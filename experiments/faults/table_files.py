"""Columns of files (images, sounds, masks, depth maps) and of labels per token, for the fuzzer."""

import io
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import scipy.fft  # noqa: F401 - before the watch: it imports a package of its own
from scipy.io import wavfile
from table_cells import ROWS, Cell, Column

CLASSES = ("sky", "sea", "land")  # of the masks, by their levels
SIZE = (3, 4)  # of images, masks and maps: rows and columns
RATE = 16_000  # of sounds, in Hz
DEPTH_SCALE = 0.25
_UNLABELED = 255
_TAGS = ("DET", "NOUN", "VERB")
_POOL = 4  # ordinary files of a column


class Pool(NamedTuple):
    """The cells of a column whose meanings are drawn once per case.

    Attributes:
      ordinary: of which the first two are in the training split.
      odd: what may replace them.
    """

    ordinary: list[Cell]
    odd: list[Cell]


def draw_pool_column(rng: random.Random, kind: str, pool: Pool, gaps: float) -> Column:
    """Draws a column of cells of a pool, a share of which is empty after the first rows."""
    cells = pool.ordinary[:2]
    while len(cells) < ROWS:
        is_gap = rng.random() < gaps
        cells.append(Cell("", (None,)) if is_gap else rng.choice(pool.ordinary))
    return Column(kind, cells)


def write_images(rng: random.Random, folder: Path) -> Pool:
    """Writes images of one mode, and some that do not fit."""
    mode = rng.choice(["L", "RGB", "RGBA", "P", "1", "I;16"])
    ordinary = []
    for i in range(_POOL):
        turn = rng.choice([0, 0, 0, 3, 6, 8]) if mode in ("L", "RGB") else 0
        picture, pixels = _draw_picture(rng, mode, turn)
        name = f"photo-{i}{rng.choice(_ENDINGS[mode] if not turn else ['.png', '.tif'])}"
        exif = PIL.Image.Exif()
        if turn:
            exif[0x0112] = turn
        picture.save(folder / name, **({"exif": exif} if turn else {}), **_list_options(name))
        ordinary.append(_name_file(rng, folder, name, pixels))
    odd = _write_broken_files(rng, folder, ".png", _encode_picture(rng, "RGB"))
    others = {"L": "RGB", "RGB": "I;16", "RGBA": "L", "P": "1", "1": "RGBA", "I;16": "RGB"}
    (folder / "other-mode.png").write_bytes(_encode_picture(rng, others[mode]))
    (folder / "other-size.png").write_bytes(_encode_picture(rng, mode, (4, 3)))
    odd += [Cell(f"other-{what}.png", (), odd=True) for what in ("mode", "size")]
    if mode == "I;16":  # 8 bits become levels of 16
        picture, pixels = _draw_picture(rng, "L", 0)
        picture.save(folder / "narrow.png")
        odd.append(Cell("narrow.png", ([257 * v for v in pixels],), odd=True))
    return Pool(ordinary, odd)


_ENDINGS = {
    "L": [".png", ".PNG", ".bmp", ".tif"],
    "RGB": [".png", ".bmp", ".tiff", ".webp"],
    "RGBA": [".png", ".webp"],
    "P": [".png", ".gif"],
    "1": [".png"],
    "I;16": [".png", ".tif"],
}


def _list_options(name: str) -> dict[str, Any]:
    return {"lossless": True, "exact": True} if name.endswith(".webp") else {}


def _name_file(rng: random.Random, folder: Path, name: str, meaning: Any) -> Cell:
    """Names a file relative to the table, or by its whole path."""
    return Cell(rng.choice([name, name, f"./{name}", str(folder / name)]), (meaning,))


def _draw_picture(
    rng: random.Random, mode: str, turn: int = 0, size: tuple[int, int] = SIZE
) -> tuple[Any, list[float]]:
    """Draws a picture, and the numbers that a viewer shows, row by row."""
    draw = np.random.default_rng(rng.randrange(2**32))
    channels = {"RGB": 3, "RGBA": 4}.get(mode, 1)
    shown = draw.integers(0, 256, (*size, channels))
    if mode == "I;16":
        shown = draw.integers(0, 65536, (*size, 1))
        picture = PIL.Image.fromarray(shown[..., 0].astype(np.uint16))
    elif mode == "1":
        shown = shown // 128 * 255
        picture = PIL.Image.fromarray(shown[..., 0].astype(np.uint8)).convert("1")
    elif mode == "P":
        palette = draw.integers(0, 256, (256, 3))
        picture = PIL.Image.fromarray(shown[..., 0].astype(np.uint8), mode="P")
        picture.putpalette(palette.astype(np.uint8).tobytes())
        shown = palette[shown[..., 0]]
    else:
        # Stored turned by a right angle or two, as cameras do.
        stored = np.rot90(shown, {0: 0, 3: 2, 6: 1, 8: -1}[turn]).astype(np.uint8)
        picture = PIL.Image.fromarray(
            np.ascontiguousarray(stored.squeeze(-1) if channels == 1 else stored)
        )
    return picture, [float(v) for v in shown.ravel()]


def _encode_picture(rng: random.Random, mode: str, size: tuple[int, int] = SIZE) -> bytes:
    stream = io.BytesIO()
    _draw_picture(rng, mode, 0, size)[0].save(stream, "PNG")
    return stream.getvalue()


def _write_broken_files(
    rng: random.Random, folder: Path, ending: str, content: bytes
) -> list[Cell]:
    """Writes files that no reader takes, and names one that does not exist."""
    broken = {
        "cut": content[: rng.randrange(12, len(content) // 2)],
        "empty": b"",
        "text": b"not what its name says\n" * 3,
    }
    for name, part in broken.items():
        (folder / f"{name}{ending}").write_bytes(part)
    (folder / f"folder{ending}").mkdir(exist_ok=True)
    names = [*broken, "folder", "absent", " cut", "sub/absent"]
    return [Cell(f"{name}{ending}", (), odd=True) for name in names]


def write_sounds(rng: random.Random, folder: Path) -> Pool:
    """Writes recordings in several formats, and some that do not fit."""
    ordinary = []
    for i in range(_POOL):
        content, samples = _draw_sound(rng, rng.choice(["u1", "i2", "i2", "i4", "f4"]))
        (folder / f"sound-{i}.wav").write_bytes(content)
        ordinary.append(_name_file(rng, folder, f"sound-{i}.wav", samples))
    content, samples = _draw_sound(rng, "i2")
    odd = _write_broken_files(rng, folder, ".wav", content)
    (folder / "slow.wav").write_bytes(_draw_sound(rng, "i2", RATE // 2)[0])
    (folder / "nothing.wav").write_bytes(_encode_wav(np.zeros(0, np.int16), RATE))
    (folder / "nan.wav").write_bytes(_encode_wav(np.full(500, np.nan, np.float32), RATE))
    odd += [Cell(f"{name}.wav", (), odd=True) for name in ("slow", "nothing", "nan")]
    (folder / "silence.wav").write_bytes(_encode_wav(np.zeros(500, np.int16), RATE))
    return Pool(ordinary, [*odd, Cell("silence.wav", ([0.0] * 500,), odd=True)])


def _draw_sound(rng: random.Random, kind: str, rate: int = RATE) -> tuple[bytes, list[float]]:
    """Draws noise as a WAV file, and the mean of its channels as numbers up to 1."""
    draw = np.random.default_rng(rng.randrange(2**32))
    shape = (rng.randrange(300, 1200), *([2] if rng.random() < 0.3 else []))
    if kind == "f4":
        stored = draw.uniform(-1, 1, shape).astype(np.float32)
        values = stored.astype(np.float64)
    else:
        limits = np.iinfo(kind)
        stored = draw.integers(limits.min, limits.max, shape, endpoint=True).astype(kind)
        half = 2.0 ** (8 * stored.itemsize - 1)
        values = (stored.astype(np.float64) - (half if kind == "u1" else 0)) / half
    values = values.mean(axis=1) if values.ndim == 2 else values
    return _encode_wav(stored, rate), values.tolist()


def _encode_wav(samples: np.ndarray, rate: int) -> bytes:
    stream = io.BytesIO()
    wavfile.write(stream, rate, samples)
    return stream.getvalue()


def write_masks(rng: random.Random, folder: Path) -> Pool:
    """Writes masks of three classes and pixels without one, and some that do not fit."""
    ordinary = []
    for i in range(_POOL):
        levels = _draw_levels(rng, rng.choice([(0, 1, 2), (0, 1, 2, _UNLABELED), (1,)]))
        if i == 0:
            levels[0, :3] = (0, 1, 2)
        name = f"mask-{i}{rng.choice(['.png', '.bmp', '.tif'])}"
        _save_levels(rng, folder / name, levels)
        ordinary.append(_name_file(rng, folder, name, _name_levels(levels)))
    odd = _write_broken_files(rng, folder, ".png", _encode_picture(rng, "L"))
    _save_levels(rng, folder / "level.png", _draw_levels(rng, (0, 3)) | np.uint8(3))
    _save_levels(rng, folder / "mask-size.png", _draw_levels(rng, (0, 1), (4, 3)))
    (folder / "colors.png").write_bytes(_encode_picture(rng, "RGB"))
    PIL.Image.fromarray(_draw_levels(rng, (0, 1, 2))).save(folder / "lossy.jpg")
    odd += [
        Cell(n, (), odd=True) for n in ("level.png", "mask-size.png", "colors.png", "lossy.jpg")
    ]
    bits = _draw_levels(rng, (0, 1))
    PIL.Image.fromarray(bits * 255).convert("1").save(folder / "bits.png")
    return Pool(ordinary, [*odd, Cell("bits.png", (_name_levels(bits),), odd=True)])


def _draw_levels(
    rng: random.Random, levels: Sequence[int], size: tuple[int, int] = SIZE
) -> np.ndarray:
    return np.array(
        [[rng.choice(levels) for _ in range(size[1])] for _ in range(size[0])], np.uint8
    )


def _save_levels(rng: random.Random, path: Path, levels: np.ndarray) -> None:
    """Saves levels as gray, or as indices of a palette."""
    picture = PIL.Image.fromarray(levels)
    if path.suffix == ".png" and rng.random() < 0.5:
        picture = PIL.Image.fromarray(levels, mode="P")
        picture.putpalette(rng.randbytes(768))
    picture.save(path)


def _name_levels(levels: np.ndarray) -> list[str | None]:
    return [None if v == _UNLABELED else CLASSES[v] for v in levels.ravel().tolist()]


def write_depth_maps(rng: random.Random, folder: Path) -> Pool:
    """Writes depth maps as levels or arrays, of which some pixels are unmeasured; and odd ones."""
    ordinary = []
    for i in range(_POOL):
        levels = _draw_levels(rng, (0, 1, 7, 200)).astype(np.uint16) * rng.choice([1, 300])
        ending = rng.choice([".png", ".tif", ".npy", ".npy"])
        array: Any = levels
        if ending == ".npy":
            array = levels.astype(rng.choice([np.float32, np.float64, np.int32, np.uint16]))
            if array.dtype.kind == "f" and i:
                array[0, 0] = np.nan
            np.save(folder / f"depth-{i}.npy", array[..., None] if rng.random() < 0.3 else array)
        else:
            PIL.Image.fromarray(levels).save(folder / f"depth-{i}{ending}")
        depths = [0.0 if v != v else float(v) * DEPTH_SCALE for v in array.ravel().tolist()]
        ordinary.append(_name_file(rng, folder, f"depth-{i}{ending}", depths))
    stream = io.BytesIO()
    np.save(stream, np.ones(SIZE))
    odd = _write_broken_files(rng, folder, ".npy", stream.getvalue())
    wrong: dict[str, Any] = {
        "negative": np.full(SIZE, -2.0), "infinite": np.full(SIZE, np.inf), "flat": np.ones(12),
        "depth-size": np.ones((4, 3)), "complex": np.ones(SIZE, complex),
        "names": np.full(SIZE, "a"),
        "truth": np.ones(SIZE, bool), "huge": np.full(SIZE, 1e40),
    }  # fmt: skip
    for name, array in wrong.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "objects.npy", np.full(SIZE, None), allow_pickle=True)
    names = [*wrong, "objects"]
    return Pool(ordinary, [*odd, *(Cell(f"{name}.npy", (), odd=True) for name in names)])


WRITE: dict[str, Callable[[random.Random, Path], Pool]] = {
    "image": write_images,
    "sound": write_sounds,
    "mask": write_masks,
    "depth": write_depth_maps,
}


def draw_sentences(rng: random.Random, gaps: float) -> tuple[Column, Column, Column]:
    """Draws texts, one label per token, and spans of characters."""
    texts, labels, spans = list[Cell](), list[Cell](), list[Cell]()
    for row in range(ROWS):
        words = rng.choices(["Ada", "saw", "old", "Kyoto", "u.s", "1"], k=rng.randrange(1, 6))
        if not row:
            words = ["Ada", "saw", "Bo", "in", "Rome"]
        text = " ".join(words)
        texts.append(Cell(text, (text,)))
        # A full stop inside of a word is a token.
        count = sum(3 if word == "u.s" else 1 for word in words)
        tags = [*_TAGS, *_TAGS][:count] if not row else rng.choices(_TAGS, k=count)
        labels.append(Cell(rng.choice([" ", "  "]).join(tags), (tags,)))
        ends = [
            (len(" ".join(words[:i])) + bool(i), len(" ".join(words[: i + 1])))
            for i in range(len(words))
        ]
        chosen = [[*ends[0], "PER"], [*ends[4], "LOC"]] if not row else _draw_spans(rng, ends)
        spans.append(_spell_spans(rng, chosen))
        for cells in (labels, spans):
            if row > 1 and rng.random() < gaps:
                cells[-1] = Cell("", (None,))
    return Column("words", texts), Column("tags", labels), Column("spans", spans)


def _draw_spans(rng: random.Random, ends: Sequence[tuple[int, int]]) -> list[list[Any]]:
    """Draws spans of one or two words, in any order."""
    chosen, first = [], 0
    while first < len(ends):
        last = min(first + rng.randrange(2), len(ends) - 1)
        if rng.random() < 0.4:
            chosen.append([ends[first][0], ends[last][1], rng.choice(["PER", "LOC"])])
        first = last + 1
    return rng.sample(chosen, len(chosen))


def _spell_spans(rng: random.Random, spans: list[list[Any]], odd: bool = False) -> Cell:
    items: Any = spans
    if rng.random() < 0.3:
        items = [{"start": s, "end": e, "label": n} for s, e, n in spans]
    return Cell(json.dumps(items), (spans,), odd)


def draw_odd_tags(rng: random.Random) -> Cell:
    """Draws labels whose number is likely not that of the tokens, or that no other row has."""
    tags = rng.choice([["DET"] * 9, ["NOUN"], ["ODD", "DET"], ["DET", "1.0"]])
    return Cell(" ".join(tags), (tags,), odd=True)


def draw_odd_spans(rng: random.Random) -> Cell:
    """Draws spans that lie outside of the text, have no token, or are not spans."""
    wrong = ("[[0, 3]]", "[0, 3]", "{}x", "PER", "[[0, 3, 4, 5]]", '[["a", 3, "PER"]]', "[[0, 3.5,")
    if rng.random() < 0.4:
        return Cell(rng.choice(wrong), (), odd=True)
    spans: list[list[Any]] = rng.choice(
        [[[90, 95, "PER"]], [[2, 2, "PER"]], [[-1, 2, "PER"]], [[0, 1, "PER"], [0, 2, "LOC"]]]
    )
    return _spell_spans(rng, spans, odd=True)
