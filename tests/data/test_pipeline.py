"""The order of examples, and two ways to the devices that deliver the same ones."""

import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data.dataset import Arrays
from mmjax.data.missing import Missing
from mmjax.data.pipeline import ProcessShare, make_on_device_feed, split_over_devices
from mmjax.data.sampling.batch_order import TrainIndexPlan, make_eval_indices, make_train_indices
from mmjax.data.streaming import FetchedChunks, make_streaming_feed
from mmjax.types import Batch

EPOCHS = {"seed": st.integers(0, 2**31), "epoch": st.integers(0, 1000)}
SIZES = {"examples": st.integers(1, 60), "batch_size": st.integers(1, 60)}


def epoch_of(seed, epoch, examples, batch_size):
    """All steps of an epoch, as [steps, batch]."""
    steps = examples // batch_size
    start = epoch * steps
    return make_train_indices([seed], examples, batch_size, start, start + steps)[0]


@settings(max_examples=50)
@given(**EPOCHS, **SIZES)
def test_an_epoch_visits_no_example_twice_and_drops_less_than_a_batch(
    seed, epoch, examples, batch_size
):
    batch_size = min(batch_size, examples)
    seen = epoch_of(seed, epoch, examples, batch_size)
    assert seen.shape == (examples // batch_size, batch_size)
    assert seen.dtype == np.int32
    assert len(set(seen.reshape(-1).tolist())) == seen.size > examples - batch_size
    assert seen.min() >= 0 and seen.max() < examples


def test_what_an_epoch_drops_differs_from_epoch_to_epoch():
    """So every example is seen in the long run: 3 of 11 are dropped, and not the same 3."""
    dropped = {frozenset(range(11)) - set(epoch_of(0, e, 11, 4).flat) for e in range(20)}
    assert all(len(d) == 3 for d in dropped)
    assert frozenset().union(*dropped) == set(range(11))


def test_order_differs_by_seed_and_by_epoch():
    orders = {epoch_of(s, e, 50, 10).tobytes() for s in range(5) for e in range(5)}
    assert len(orders) == 25


def test_every_place_gets_every_example_alike():
    """Over 2000 epochs an example comes first about 2000 / 8 times (7 standard deviations)."""
    first = np.array([epoch_of(3, e, 8, 2)[0, 0] for e in range(2000)])
    counts = np.bincount(first, minlength=8)
    assert np.abs(counts - 250).max() < 7 * np.sqrt(2000 / 8 * 7 / 8)


@settings(max_examples=50)
@given(**EPOCHS, **SIZES, data=st.data())
def test_pieces_of_an_epoch_equal_the_whole(seed, epoch, examples, batch_size, data):
    """A step's batch is known from its number alone, whatever ran before it."""
    batch_size = min(batch_size, examples)
    steps = examples // batch_size
    whole = epoch_of(seed, epoch, examples, batch_size)
    cut = data.draw(st.integers(0, steps))
    start = epoch * steps
    pieces = [
        make_train_indices([seed], examples, batch_size, start + a, start + b)[0]
        for a, b in ((cut, steps), (0, cut))  # the later one first
        if a < b
    ]
    np.testing.assert_array_equal(np.concatenate(pieces[::-1]), whole)


def test_each_of_several_seeds_gets_its_own_order():
    together = make_train_indices([4, 9], 30, 5, 6, 12)
    for row, seed in zip(together, (4, 9), strict=True):
        np.testing.assert_array_equal(row, make_train_indices([seed], 30, 5, 6, 12)[0])


@settings(max_examples=100)
@given(**SIZES, batches=st.integers(1, 12))
def test_evaluation_sees_every_example_once_in_order(examples, batch_size, batches):
    chunks = make_eval_indices(examples, batch_size, batches)
    counted = np.concatenate([indices[valid] for indices, valid in chunks])
    np.testing.assert_array_equal(counted, np.arange(examples))
    shapes = {array.shape for chunk in chunks for array in chunk}
    assert len(shapes) == 1  # one program serves all chunks
    ((count, size),) = shapes
    assert count <= batches and size == batch_size
    for indices, _ in chunks:
        assert indices.min() >= 0 and indices.max() < examples
    # No chunk but the last has room for more, and the last is not all filling.
    assert (len(chunks) - 1) * count * size < examples


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_split_devices_gives_each_device_a_part_of_every_batch(devices):
    indices = np.arange(3 * 5 * 8).reshape(3, 5, 8)
    split = split_over_devices(indices, devices)
    part = 8 // devices
    assert split.shape == (devices, 3, 5, part)
    for d in range(devices):
        np.testing.assert_array_equal(split[d], indices[:, :, d * part : (d + 1) * part])


def nothing(batch, draw):
    """A rule that takes nothing away; `Missing` makes a source of it that is not `Arrays`."""
    return batch


def numbered(examples):
    """Examples that tell their own number."""
    every = np.arange(examples, dtype=np.int32)
    here = np.ones(examples, bool)
    return Batch({"x": every[:, None]}, {"x": here}, {}, {"y": every}, {"y": here})


@settings(max_examples=30)
@given(
    examples=st.integers(8, 70),
    local=st.integers(1, 3),
    processes=st.integers(1, 4),
    per_device=st.integers(1, 2),
    seeds=st.lists(st.integers(0, 2**31), min_size=1, max_size=3, unique=True),
    size=st.integers(1, 5),
    first=st.integers(0, 40),
)
def test_the_processes_rows_together_are_the_batches_of_one_process(
    examples, local, processes, per_device, seeds, size, first
):
    """Device by device, from any step on, over epochs and their remainders; by slow indexing."""
    devices = local * processes
    batch_size = min(devices * per_device, examples - examples % devices)
    if batch_size == 0:
        return
    steps = examples // batch_size
    epoch = (first // steps + 1) * steps
    single = [(step, step + 1) for step in range(first, first + 3)]
    ranges = (*single, (epoch, epoch + min(size, steps)))
    plan = TrainIndexPlan(tuple(seeds), examples, batch_size, ranges)
    source, part = Arrays(numbered(examples)), batch_size // devices
    for p in range(processes):
        mine = tuple(range(p * local, (p + 1) * local))
        fetched = FetchedChunks(plan, source, ProcessShare(devices, mine), lambda batch: batch)
        for chunk, (start, stop) in zip(
            (fetched[i] for i in range(len(plan))), ranges, strict=True
        ):
            data, indices = chunk
            assert data.inputs["x"].shape[0] == indices.shape[0] == local
            assert data.inputs["x"].size == local * len(seeds) * (stop - start) * part
            for d, i, k in np.ndindex(local, len(seeds), stop - start):
                epoch, step = divmod(start + k, steps)
                order = np.random.Generator(np.random.Philox(key=[seeds[i], epoch]))
                row = order.permutation(examples)[step * batch_size + mine[d] * part :][:part]
                np.testing.assert_array_equal(data.targets["y"][d][indices[d, i, k]], row)


def reach(feed, chunk, device):
    """The examples that one device gets of a chunk, by what lies on that device alone."""
    data, indices = chunk

    def local(array):
        (shard,) = [s for s in array.addressable_shards if s.device == jax.devices()[device]]
        part = np.asarray(shard.data)
        return (part[0] if feed.sharded else part)[indices[device]]

    return jax.tree.map(local, data)


@pytest.mark.parametrize("devices", [1, 4])
def test_both_feeds_deliver_the_examples_of_the_plan(toy, devices):
    """Two seeds, five dispatches of two steps: the same as by slow indexing of the split."""
    batch = toy.batch(40, 0)
    plan = [make_train_indices([7, 1], 40, 8, start, start + 2) for start in (0, 2, 5, 7, 10)]
    feeds = {
        "on device": make_on_device_feed(batch, jax.devices()[:devices]),
        "streamed": make_streaming_feed(Arrays(batch), jax.devices()[:devices]),
    }
    for name, feed in feeds.items():
        chunks = list(feed.chunks(plan))
        assert len(chunks) == len(plan), name
        for chunk, wanted in zip(chunks, plan, strict=True):
            for d in range(devices):
                part = wanted[:, :, d * 8 // devices : (d + 1) * 8 // devices]
                expected = jax.tree.map(lambda x, part=part: x[part], batch)
                found = reach(feed, chunk, d)
                jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_streamed_device_holds_its_own_examples_only(toy):
    batch = toy.batch(40, 0)
    plan = [make_train_indices([0], 40, 8, 0, 5)]
    ((data, _),) = make_streaming_feed(Arrays(batch), jax.devices()[:4]).chunks(plan)
    for array in jax.tree.leaves(data):
        assert array.shape[:2] == (4, 10)
        assert {s.data.shape[:2] for s in array.addressable_shards} == {(1, 10)}


def test_a_stream_prepares_every_chunk_and_passes_errors_on(toy):
    def halve(batch):
        return batch._replace(inputs={"vector": batch.inputs["vector"] / 2})

    batch = toy.batch(16, 0)
    plan = [make_train_indices([0], 16, 4, 0, 4)]
    ((data, indices),) = make_streaming_feed(Arrays(batch), jax.devices()[:1], halve).chunks(plan)
    assert set(data.inputs) == {"vector"}
    found = np.asarray(data.inputs["vector"][0])[indices[0]]
    np.testing.assert_array_equal(found, batch.inputs["vector"][plan[0]] / 2)

    def refuse(batch):
        raise ValueError("example 3 is bad")

    with pytest.raises(ValueError, match="example 3 is bad"):
        list(make_streaming_feed(Arrays(batch), jax.devices()[:1], refuse).chunks(plan))


def batches(feed, plan):
    """The numbers of the examples of every dispatch, as they lie on the devices."""
    found = []
    for data, indices in feed.chunks(plan):
        y = np.asarray(data.targets["y"])
        found.append(np.stack([(y[d] if feed.sharded else y)[i] for d, i in enumerate(indices)]))
    return found


# Three epochs of 4 steps with 3 of 35 examples left over, two seeds; and the same from step 7 on.
RANGES = ((0, 3), (3, 4), (4, 7), (7, 8), (8, 11), (11, 12))
WHOLE, REST = (TrainIndexPlan((5, 2**40), 35, 8, ranges) for ranges in (RANGES, RANGES[3:]))


def test_device_and_threads_give_the_same_batches_and_resume():
    devices, arrays = jax.devices()[:4], Arrays(numbered(35))
    expected = batches(make_on_device_feed(arrays.batch, devices), WHOLE)
    afar = Missing(arrays, nothing, 0, "train")
    for feed in (make_streaming_feed(arrays, devices), make_streaming_feed(afar, devices, ahead=4)):
        for plan, wanted in ((WHOLE, expected), (REST, expected[3:])):
            for one, other in zip(batches(feed, plan), wanted, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_worker_processes_give_the_same_batches_and_pass_errors_on(monkeypatch):
    """Slow for the start of four processes, which must find this module."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    devices, arrays = jax.devices()[:4], Arrays(numbered(35))
    feed = make_streaming_feed(Missing(arrays, nothing, 0, "train"), devices, workers=2)
    expected = batches(make_on_device_feed(arrays.batch, devices), REST)
    for one, other in zip(batches(feed, REST), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    beyond = TrainIndexPlan((0,), 99, 8, RANGES)  # of examples that are not there
    with pytest.raises(IndexError, match="out of bounds"):
        batches(feed, beyond)


class Locked:
    """A source that cannot be sent to another process."""

    def __init__(self):
        self.lock = threading.Lock()

    def __len__(self):
        return 8

    def take(self, indices):
        raise AssertionError("nothing is read before it is known that workers can")


def test_a_source_that_cannot_be_sent_to_workers_is_refused_with_the_mend():
    feed = make_streaming_feed(Locked(), jax.devices()[:1], workers=1)
    with pytest.raises(ValueError, match=r"Locked cannot be sent to worker .*set workers=0"):
        next(feed.chunks(TrainIndexPlan((0,), 8, 4, ((0, 1),))))
