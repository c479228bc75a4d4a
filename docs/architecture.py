"""Draws the architecture of mmjax as an SVG file that is readable on light and dark pages.

    python docs/architecture.py

writes docs/architecture.svg. Only the standard library is used.
"""

from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, TOP, BOTTOM = 960, 28, 372
GRAY = "#7d8590"  # readable on white and on black; text inside boxes is white on a dark fill
FILLS = {"data": "#3a5a80", "model": "#1f6f50", "task": "#7a4a8a", "update": "#8a5318"}
MODALITIES = (("image", ""), ("speech", ""), ("text", "missing"))
TASKS = (("digit", ""), ("language", ""), ("rate", "no label"))
ROWS = (72, 128, 184)  # top edges of the boxes of modalities, encoders, heads and losses
BOX = 40  # height of a box


def draw_text(x: float, y: float, text: str, *, color: str = GRAY, size: int = 13) -> str:
    """Returns a centered line of text; y is its middle."""
    return (
        f'<text x="{x}" y="{y + size * 0.35:.1f}" font-size="{size}" fill="{color}">'
        f"{escape(text)}</text>"
    )


def draw_box(
    x: float, y: float, width: float, height: float, text: str, kind: str, *, dashed: bool = False
) -> str:
    """Returns a box with lines of text; a dashed box stands for something that is missing."""
    style = (
        f'fill="none" stroke="{GRAY}" stroke-width="1.5" stroke-dasharray="5 4"'
        if dashed
        else f'fill="{FILLS[kind]}"'
    )
    lines = text.split("\n")
    first = y + height / 2 - 8.5 * (len(lines) - 1)
    color = GRAY if dashed else "#ffffff"
    words = [
        draw_text(x + width / 2, first + 17 * i, line, color=color) for i, line in enumerate(lines)
    ]
    rectangle = f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" {style}/>'
    return "".join([rectangle, *words])


def draw_arrow(*points: tuple[float, float], dashed: bool = False) -> str:
    """Returns a polyline that ends in an arrowhead."""
    path = " ".join(f"{x},{y}" for x, y in points)
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<polyline points="{path}" fill="none" stroke="{GRAY}" stroke-width="1.5"{dashes} '
        'marker-end="url(#head)"/>'
    )


def draw_architecture() -> str:
    """Returns the whole picture: a batch, the model, the losses, the balancer, the update."""
    parts = []
    middle = ROWS[1] + BOX / 2
    columns = ((72, "batch"), (207, "encoders"), (335, "fusion"), (463, "sharing"))
    for x, title in (*columns, (591, "heads"), (728, "losses"), (874, "balancer")):
        parts.append(draw_text(x, 44, title, size=14))
    for y, (name, missing) in zip(ROWS, MODALITIES, strict=True):
        text = f"{name}\n({missing})" if missing else name
        parts.append(draw_box(20, y, 104, BOX, text, "data", dashed=bool(missing)))
        parts.append(draw_arrow((124, y + BOX / 2), (160, y + BOX / 2), dashed=bool(missing)))
        parts.append(draw_box(162, y, 90, BOX, "tokens\n+ mask", "model"))
        parts.append(draw_arrow((252, y + BOX / 2), (288, middle)))
    parts.append(draw_box(290, 104, 90, 88, "one vector\nper example", "model"))
    parts.append(draw_arrow((380, middle), (416, middle)))
    parts.append(draw_box(418, 104, 90, 88, "features\nper task", "model"))
    for y, (name, missing) in zip(ROWS, TASKS, strict=True):
        parts.append(draw_arrow((508, middle), (544, y + BOX / 2)))
        parts.append(draw_box(546, y, 90, BOX, name, "task"))
        parts.append(draw_arrow((636, y + BOX / 2), (676, y + BOX / 2), dashed=bool(missing)))
        text = f"loss\n({missing})" if missing else "loss"
        parts.append(draw_box(678, y, 100, BOX, text, "task", dashed=bool(missing)))
        parts.append(draw_arrow((778, y + BOX / 2), (814, middle), dashed=bool(missing)))
    parts.append(
        draw_box(816, 84, 116, 128, "weights from\nlosses, Gramian\nor Jacobian", "update")
    )
    # Auxiliary objectives read what lies between the encoders and the heads.
    parts.append(draw_arrow((335, 192), (335, 262), (676, 262)))
    parts.append(draw_box(678, 242, 100, BOX, "auxiliary\nobjectives", "task"))
    parts.append(draw_arrow((778, 262), (850, 262), (850, 214)))
    # The gradient of the weighted losses becomes an update of the parameters.
    parts.append(draw_arrow((894, 212), (894, 300)))
    parts.append(draw_box(816, 302, 116, BOX, "any optax\noptimizer", "update"))
    parts.append(draw_arrow((816, 322), (207, 322), (207, 226)))
    parts.append(draw_text(500, 309, "new parameters"))
    parts.append(
        draw_text(
            480,
            356,
            "train_step(state, batch) -> (state, metrics): one pure function under jit, "
            "pmap over devices, scan over steps, vmap over seeds",
        )
    )
    head = (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{GRAY}"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {TOP} {WIDTH} {BOTTOM - TOP}" '
        f'width="{WIDTH}" height="{BOTTOM - TOP}" font-family="Helvetica, Arial, sans-serif" '
        'text-anchor="middle" role="img">\n<title>Architecture of mmjax</title>\n'
        + "\n".join([head, *parts])
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw_architecture(), encoding="utf-8")
