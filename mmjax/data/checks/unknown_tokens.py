"""The share of words and categories in each split that the training split does not have."""

import warnings
from collections.abc import Mapping

import numpy as np

from mmjax.data.dataset import Arrays, Dataset, Modality
from mmjax.data.normalize import make_validity_mask
from mmjax.types import Batch

_WARN_SHARE = 0.2  # of a split's tokens
_MAX_EXAMPLES = 10_000  # looked at per split in memory, spread over it
_MAX_DECODED = 256  # looked at per split that is read from files on demand


def measure_unknown_share(batch: Batch, name: str, modality: Modality) -> float | None:
    """Computes the share of unknown tokens among the tokens of a modality; None without tokens.

    Example:
      >>> note, there = Modality((3,), True, ("padding", "unknown", "cat")), np.array([True, True])
      >>> x, lengths = np.array([[2, 1, 0], [2, 2, 0]]), np.array([2, 2])
      >>> measure_unknown_share(Batch({"n": x}, {"n": there}, {"n": lengths}, {}, {}), "n", note)
      0.25
    """
    unknown = modality.list_unknown_tokens()
    is_real = make_validity_mask(batch.present[name], batch.lengths.get(name), modality)
    tokens = np.asarray(batch.inputs[name])[is_real]
    return float(np.isin(tokens, unknown).mean()) if unknown and tokens.size else None


def describe_unknown_tokens(data: Dataset) -> list[str]:
    """Returns one line per modality with a vocabulary; warns if a split has many unknown tokens.

    Args:
      data: the data set; of large splits some thousand examples are looked at.
    """
    named = {m: spec for m, spec in data.modalities.items() if spec.list_unknown_tokens()}
    shares: dict[str, dict[str, float]] = {m: {} for m in named}
    for split, source in data.splits.items() if named else ():
        limit = _MAX_EXAMPLES if isinstance(source, Arrays) else _MAX_DECODED
        count = min(len(source), limit)
        batch = source.take(np.linspace(0, len(source) - 1, count).astype(int))
        for m, spec in named.items():
            share = measure_unknown_share(batch, m, spec)
            if share is not None:
                shares[m][split] = share
    for m, by_split in shares.items():
        _warn_about_many(data.name, m, by_split)
    lines = []
    for m, by_split in shares.items():
        parts = ", ".join(f"{share:.1%} of {split}" for split, share in by_split.items())
        lines.append(f"  {m}: unknown tokens are {parts}")
    return lines


def _warn_about_many(name: str, modality: str, shares: Mapping[str, float]) -> None:
    for split, share in shares.items():
        if share > _WARN_SHARE:
            warnings.warn(
                f"{name}: {share:.0%} of the tokens of modality {modality!r} in {split!r} are "
                "unknown; a larger vocabulary, a tokenizer or level='byte' of a `Text`, or a "
                "smaller min_count of a `Category` keeps more.",
                stacklevel=4,
            )
