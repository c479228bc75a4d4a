"""Self-contained HTML page with embedded figures and tables that sort by click or key.

Tables of many rows show the first ones, and have filters by words and by the labels of each axis.

Its security policy forbids every request, so that the page can be sent and opened anywhere.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from mmjax.printing.escapes import escape_html

_STYLE = """
body { margin: 0 auto; max-width: 78rem; padding: 1rem; color: #111; background: #fff;
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p, figcaption { max-width: 46rem; color: #333; font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
thead { border-top: 2px solid; border-bottom: 1px solid; }
tbody { border-bottom: 1px solid; } tbody:last-child { border-bottom: 2px solid; }
th, td { padding: .15rem .6rem; text-align: left; white-space: nowrap; }
.prose td { white-space: normal; overflow-wrap: anywhere; }
.prose td:first-child { white-space: nowrap; vertical-align: top; }
.number { text-align: right; }
sup { display: inline-block; width: .6em; margin-right: -.6em; text-align: left; line-height: 0; }
tbody tr:hover { background: #eef3f8; }
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0;
  padding: .15rem 0; cursor: pointer; }
th small { display: block; font-weight: 400; color: #555; }
th { vertical-align: top; }
th button:hover { text-decoration: underline; }
th[aria-sort] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
:focus-visible { outline: 2px solid #0072b2; outline-offset: 2px; }
.filters { display: flex; flex-wrap: wrap; gap: .4rem 1rem; align-items: baseline;
  margin: 0 0 .5rem; font-size: .85rem; }
.filters select, .filters input { font: inherit; max-width: 14rem; }
.figures { columns: 20rem; column-gap: 1.5rem; }
figure { margin: 0 0 1.5rem; break-inside: avoid; } figure img { width: 100%; height: auto; }
"""

_SCRIPT = """
const key = (row, column) => {
  const text = row.cells[column].dataset.value;
  return text === "" || text === "nan" ? null : isNaN(text) ? text : Number(text);
};
const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0)
  : typeof a === "number" ? -1 : 1;
const sort = (head) => {
  const table = head.closest("table"), column = head.cellIndex;
  const descending = head.ariaSort === "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.ariaSort = descending ? "descending" : "ascending";
  for (const body of table.tBodies) {
    const rows = [...body.rows].map((row) => [key(row, column), row]);
    const known = rows.filter(([k]) => k !== null);
    known.sort(([a], [b]) => descending ? compare(b, a) : compare(a, b));
    body.append(...[...known, ...rows.filter(([k]) => k === null)].map(([, row]) => row));
  }
  table.dispatchEvent(new Event("sorted"));
};
for (const button of document.querySelectorAll("th button"))
  button.addEventListener("click", () => sort(button.closest("th")));

const addChoice = (bar, name, choices) => {
  const label = document.createElement("label"), select = document.createElement("select");
  label.textContent = `${name} `;
  select.append(...choices.map(([text, value]) => new Option(text, value)));
  label.append(select);
  bar.append(label);
  return select;
};
const addFilters = (table) => {
  const bar = document.createElement("div"), search = document.createElement("input");
  const state = document.createElement("output");
  const rows = () => [...table.tBodies].flatMap((body) => [...body.rows]);
  bar.className = "filters";
  search.type = "search";
  search.placeholder = "words in a row";
  search.ariaLabel = "show rows with these words";
  bar.append(search);
  const facets = [...table.tHead.rows[0].cells].slice(0, table.dataset.filters).map((head, i) => {
    const texts = [...new Set(rows().map((row) => row.cells[i].textContent))].filter(Boolean);
    const choices = [["all", ""], ...texts.sort().map((text) => [text, text])];
    return addChoice(bar, head.textContent, choices);
  });
  const few = table.dataset.few;
  const limit = addChoice(bar, "rows", [[`first ${few}`, few], ["first 200", 200], ["all", ""]]);
  bar.append(state);
  const apply = () => {
    const words = search.value.toLowerCase().split(/\\s+/).filter(Boolean);
    let fitting = 0, shown = 0;
    for (const row of rows()) {
      const text = row.textContent.toLowerCase();
      const fits = words.every((word) => text.includes(word)) && facets.every(
        (facet, i) => !facet.value || row.cells[i].textContent === facet.value);
      fitting += fits;
      row.hidden = !fits || (limit.value && shown >= Number(limit.value));
      shown += !row.hidden;
    }
    state.textContent = `${shown} of ${fitting} rows`;
  };
  for (const control of [search, ...facets, limit]) control.addEventListener("input", apply);
  table.addEventListener("sorted", apply);
  table.parentNode.before(bar);
  apply();
};
for (const table of document.querySelectorAll("table[data-filters]")) addFilters(table);
"""


def make_page(title: str, parts: Sequence[str]) -> str:
    """Makes the page from its title and parts, which are HTML."""
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash_for_policy(_STYLE)}; "
        f"script-src {_hash_for_policy(_SCRIPT)}; base-uri 'none'; form-action 'none'"
    )
    name = escape_html(title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>\n"
        + "\n".join(parts)
        + f"\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def format_heading(title: str) -> str:
    """Formats a section heading."""
    return f"<h2>{escape_html(title)}</h2>"


def format_paragraph(text: str) -> str:
    """Formats a paragraph."""
    return f"<p>{escape_html(text)}</p>"


def embed_figure(path: Path, title: str, note: str) -> str:
    """Embeds a PNG file in the page, with its caption."""
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape_html(title)}">'
        f"<figcaption><strong>{escape_html(title)}.</strong> {escape_html(note)}</figcaption>"
        "</figure>"
    )


def _hash_for_policy(text: str) -> str:
    """Returns the hash by which the policy allows a style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
