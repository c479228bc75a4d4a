"""What goes missing: at its rate, by its class, by its pattern; the same in every order."""

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data import missing
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.types import Batch

EXAMPLES = 6000
NAMES = ("a", "b", "c")


def batch(examples, present=None, seed=0):
    rng = np.random.default_rng(seed)
    here = np.ones((3, examples), bool) if present is None else np.asarray(present)
    return Batch(
        inputs={m: np.arange(examples, dtype=np.float32)[:, None] for m in NAMES},
        present={m: here[i] for i, m in enumerate(NAMES)},
        lengths={},
        targets={
            "kind": rng.integers(0, 4, examples).astype(np.int32),
            "size": np.zeros(examples, np.float32),
        },
        labeled={"kind": rng.random(examples) < 0.9, "size": np.ones(examples, bool)},
    )


def dataset(source, test=None):
    return Dataset(
        "letters",
        {m: Modality((1,)) for m in NAMES},
        {"kind": Task("classification", tuple("wxyz")), "size": Task("regression")},
        {"train": source, "validation": Arrays(batch(50)), "test": test or Arrays(batch(50))},
    )


@dataclasses.dataclass(frozen=True)
class Lazy:
    """A source that is not `Arrays`: it can be read by index only."""

    arrays: Arrays

    def __len__(self):
        return len(self.arrays)

    def take(self, indices):
        return self.arrays.take(indices)


def train(data):
    source = data.splits["train"]
    return source.take(np.arange(len(source)))


def masks(part):
    return np.stack([part[k] for k in sorted(part)])


def near(found, expected, n=EXAMPLES):
    return np.all(np.abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / n) + 1e-9)


def test_draws_are_uniform_and_a_function_of_seed_name_and_index():
    draws = missing.draw_uniform(3, "train/a", np.arange(100_000))
    assert draws.min() >= 0 and draws.max() < 1
    counts = np.bincount((draws * 64).astype(int), minlength=64)
    assert ((counts - 100_000 / 64) ** 2).sum() / (100_000 / 64) < 63 + 5 * np.sqrt(2 * 63)
    # Not of what else is asked for.
    order = np.random.default_rng(0).permutation(100_000)[:500]
    np.testing.assert_array_equal(missing.draw_uniform(3, "train/a", order), draws[order])
    # Other seeds, other names and neighbours are uncorrelated (5 standard deviations).
    for other in (
        missing.draw_uniform(4, "train/a", np.arange(100_000)),
        missing.draw_uniform(3, "train/b", np.arange(100_000)),
        np.roll(draws, 1),
    ):
        assert abs(np.corrcoef(draws, other)[0, 1]) < 5 / np.sqrt(100_000)


def test_splitmix_is_the_published_one():
    """The first outputs of SplitMix64 from state 1234567 (Vigna's splitmix64.c)."""
    state, found = np.array([1234567], np.uint64), []
    for _ in range(3):
        found.append(int(missing._mix_bits(state)[0]))
        state = state + np.uint64(0x9E3779B97F4A7C15)
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_at_random_loses_at_the_rates_and_never_the_last():
    """As for modality dropout: left with probability 1 - p + p_1 p_2 p_3 / 3."""
    data = dataset(Arrays(batch(EXAMPLES)))
    rates = {"a": 0.6, "b": 0.5, "c": 0.2}
    found = train(missing.at_random(data, modalities=rates, labels={"kind": 0.3}))
    left = masks(found.present)
    p = np.array([0.6, 0.5, 0.2])
    assert near(left.mean(axis=1), 1 - p + p.prod() / 3)
    assert left.any(axis=0).all()
    labeled = train(data).labeled["kind"]
    assert not found.labeled["kind"][~labeled].any()
    assert near(found.labeled["kind"][labeled].mean(), 0.7, labeled.sum())
    assert found.labeled["size"].all()


def test_one_rate_serves_all_and_other_splits_stay():
    data = dataset(Arrays(batch(EXAMPLES)))
    found = missing.at_random(data, modalities=0.5, labels=0.25)
    assert near(masks(train(found).present).mean(axis=1), np.full(3, 0.5 + 0.125 / 3))
    assert near(train(found).labeled["size"].mean(), 0.75)
    for split in ("validation", "test"):
        assert found.splits[split] is data.splits[split]
    both = missing.at_random(data, modalities=0.5, splits=("validation", "test"))
    assert both.splits["train"] is data.splits["train"]
    one, other = (both.splits[s].take(np.arange(50)).present["a"] for s in ("validation", "test"))
    assert (one != other).any()  # a split draws for itself


def test_seeds_differ_and_repeat():
    data = dataset(Arrays(batch(200)))

    def left(seed):
        return masks(train(missing.at_random(data, modalities=0.5, seed=seed)).present).tobytes()

    assert left(0) == left(0)
    assert len({left(s) for s in range(10)}) == 10


def test_by_label_loses_at_the_rate_of_the_class():
    data = dataset(Arrays(batch(EXAMPLES)))
    rates = {"w": 0.8, "z": 0.2}
    found = train(
        missing.by_label(data, "kind", rates, modalities=("a", "b"), labels=("kind", "size"))
    )
    whole = train(data)
    for kind, rate in enumerate((0.8, 0.0, 0.0, 0.2)):
        rows = whole.labeled["kind"] & (whole.targets["kind"] == kind)
        for m in ("a", "b"):
            assert near(found.present[m][rows].mean(), 1 - rate, rows.sum())
        assert near(found.labeled["kind"][rows].mean(), 1 - rate, rows.sum())
        assert near(found.labeled["size"][rows].mean(), 1 - rate, rows.sum())
    assert found.present["c"].all()
    unknown = ~whole.labeled["kind"]
    assert masks(found.present)[:, unknown].all() and found.labeled["size"][unknown].all()


def test_a_target_that_is_missing_may_hold_anything():
    whole = batch(100)
    whole.labeled["kind"][:] = False
    whole.targets["kind"][:] = 999
    found = missing.by_label(dataset(Arrays(whole)), "kind", {"w": 1.0}, modalities=("a",))
    assert train(found).present["a"].all()


PATTERNS = [(("a", "b", "c"), 0.5), (("a",), 0.3), (("b", "c"), 0.2)]


def test_by_pattern_has_each_pattern_at_its_share():
    found = masks(train(missing.by_pattern(dataset(Arrays(batch(EXAMPLES))), PATTERNS)).present)
    for names, share in PATTERNS:
        wanted = np.array([m in names for m in NAMES])[:, None]
        assert near((found == wanted).all(axis=0).mean(), share)


def test_by_pattern_draws_among_the_patterns_that_leave_something():
    """With `a` alone the two patterns with `a` leave it, always; with `b`, the other two."""
    only = {m: np.eye(3, dtype=bool)[i] for i, m in enumerate(NAMES)}
    for m, here in only.items():
        data = dataset(Arrays(batch(300, np.tile(here[:, None], 300))))
        assert train(missing.by_pattern(data, PATTERNS)).present[m].all()
    data = dataset(Arrays(batch(EXAMPLES, np.tile([[True], [True], [False]], EXAMPLES))))
    found = train(missing.by_pattern(data, PATTERNS))
    assert near((found.present["a"] & found.present["b"]).mean(), 0.5)
    assert near((found.present["a"] & ~found.present["b"]).mean(), 0.3)
    apart = missing.by_pattern(
        dataset(Arrays(batch(50, np.tile(only["c"][:, None], 50)))), [(("a",), 0.5), (("b",), 0.5)]
    )
    assert train(apart).present["c"].all()  # no pattern fits: it stays


def transforms(rate, other, shares):
    total = sum(shares)
    patterns = [(names, s / total) for (names, _), s in zip(PATTERNS, shares, strict=True)]
    return [
        lambda d, s: missing.at_random(d, modalities={"a": rate, "b": other}, labels=rate, seed=s),
        lambda d, s: missing.by_label(
            d, "kind", {"x": rate, "y": other}, modalities=NAMES, labels=("size",), seed=s
        ),
        lambda d, s: missing.by_pattern(d, patterns, seed=s),
    ]


PRESENT = st.lists(st.integers(1, 7), min_size=1, max_size=40)
RATE = st.one_of(st.just(1.0), st.just(0.0), st.floats(0, 1))


@settings(max_examples=30)
@given(
    bits=PRESENT,
    rates=st.tuples(RATE, RATE),
    shares=st.tuples(*[st.floats(0, 1)] * 3).filter(lambda s: sum(s) > 0.01),
    seed=st.integers(0, 2**40),
    order=st.randoms(use_true_random=False),
)
def test_something_is_always_left_and_reading_lazily_in_any_order_is_the_same(
    bits, rates, shares, seed, order
):
    present = np.array([[b >> i & 1 for b in bits] for i in range(3)], bool)
    arrays = Arrays(batch(len(bits), present))
    for transform in transforms(*rates, shares):
        found = transform(dataset(arrays), seed)
        whole = train(found)
        left = masks(whole.present)
        assert left.any(axis=0).all() and not (left & ~present).any()
        lazy = transform(dataset(Lazy(arrays)), seed).splits["train"]
        indices = np.array(order.choices(range(len(bits)), k=2 * len(bits)))
        one = lazy.take(indices)
        for part in ("present", "labeled"):
            for name, mask in getattr(whole, part).items():
                np.testing.assert_array_equal(getattr(one, part)[name], mask[indices])
        np.testing.assert_array_equal(one.inputs["a"][:, 0], indices)


def test_what_lies_in_memory_stays_there_once_and_what_does_not_can_be_sent_to_workers():
    arrays = Arrays(batch(20))
    found = missing.at_random(dataset(arrays), modalities=0.5).splits["train"]
    assert isinstance(found, Arrays)
    assert found.batch.inputs["a"] is arrays.batch.inputs["a"]
    lazy = missing.by_pattern(dataset(Lazy(arrays)), PATTERNS).splits["train"]
    copy = pickle.loads(pickle.dumps(lazy))
    np.testing.assert_array_equal(
        copy.take(np.arange(20)).present["a"], lazy.take(np.arange(20)).present["a"]
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda d: missing.at_random(d, modalities=1.5), "modalities is 1.5"),
        (lambda d: missing.at_random(d, labels={"knd": 0.5}), "labels: letters has no 'knd'"),
        (lambda d: missing.at_random(d, splits=("tran",)), "splits: letters has no 'tran'"),
        (lambda d: missing.by_label(d, "size", {}, labels=("size",)), "'size' is a regression"),
        (lambda d: missing.by_label(d, "kind", {"w": 0.5}), "removes nothing"),
        (
            lambda d: missing.by_label(d, "kind", {"v": 0.5}, labels=("kind",)),
            "rates: letters has no 'v'",
        ),
        (lambda d: missing.by_pattern(d, [(("a",), 0.5)]), "sum to 0.5"),
        (lambda d: missing.by_pattern(d, [((), 1.0)]), "A pattern is empty"),
        (lambda d: missing.by_pattern(d, [(("d",), 1.0)]), "patterns: letters has no 'd'"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make(dataset(Arrays(batch(5))))
