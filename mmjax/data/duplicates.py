"""Detection of examples that occur in two splits, by a fingerprint of their inputs."""

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence


def warn_about_duplicates(
    name: str,
    digests: Mapping[str, Sequence[bytes]],
    place: Callable[[str, int], str] = lambda split, row: f"row {row} of {split!r}",
) -> None:
    """Warns, once per pair of splits, if examples of one occur in the other.

    Args:
      name: name of the data set, for the message.
      digests: {split: fingerprint of every example's inputs}.
      place: formats where the row of a split is, for the message.
    """
    # {split: {digest: first row that has it}}: the reversed order lets the first row win.
    rows: dict[str, dict[bytes, int]] = {}
    for split, split_digests in digests.items():
        rows[split] = {d: row for row, d in reversed(list(enumerate(split_digests)))}
    for a, b in itertools.combinations(digests, 2):
        shared = [row for row, d in enumerate(digests[b]) if d in rows[a]]
        if shared:
            first = place(a, rows[a][digests[b][shared[0]]])
            warnings.warn(
                f"{name}: {len(shared)} of the {len(digests[b])} examples of {b!r} have the same "
                f"inputs as one of {a!r}, first {place(b, shared[0])} and {first}.",
                stacklevel=2,
            )
