"""The feed of data that are fetched while the devices compute, by threads or worker processes."""

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec

from mmjax.data.dataset import Arrays, Source
from mmjax.data.load.stored.stored_rows import StoredRows
from mmjax.data.mapped_arrays import MappedArrays
from mmjax.data.normalize import StandardizedSource
from mmjax.data.pipeline import Feed, ProcessShare, compute_process_share, make_sharding
from mmjax.data.sampling.batch_order import IndexPlan
from mmjax.data.workers import (
    SendableChunks,
    WorkerSetup,
    check_workers_alive,
    find_modules_imported_by_path,
    leave_signals_to_main_thread,
)
from mmjax.types import Batch


def make_streaming_feed(
    source: Source,
    devices: Sequence[jax.Device],
    prepare: Callable[[Batch], Batch] = lambda batch: batch,
    *,
    ahead: int = 2,
    workers: int = 0,
) -> Feed:
    """Fetches examples and puts them on the devices while these compute, by grain.

    Each process fetches the examples of its own devices only.

    Args:
      source: where the examples come from.
      devices: where they go; each gets only its own part.
      prepare: applied on the host to every chunk (selection, validation).
      ahead: number of chunks that are fetched early; one more waits on the devices.
      workers: number of processes that fetch, for sources that keep Python busy (decoding); 0
        fetches by threads of this process. A plan, a source and `prepare` must be picklable.
        Workers are started for every pass over a plan, which takes seconds. `Arrays`, memory maps
        and streamed tables without images and recordings need none, and start none.

    Raises:
      ValueError: if the source cannot be sent to worker processes.
    """
    sharding, process_share = (
        make_sharding(devices, PartitionSpec("data")),
        compute_process_share(devices),
    )

    def put_on_devices(chunk: tuple[Batch, Any]) -> tuple[Batch, Any]:
        return jax.device_put(chunk[0], sharding), chunk[1]

    def chunks(plan: IndexPlan) -> Iterator[tuple[Batch, Any]]:
        import grain

        fetched = _fetch_chunks(FetchedChunks(plan, source, process_share, prepare), ahead, workers)
        prefetched = grain.experimental.ThreadPrefetchIterDataset(
            fetched.map(put_on_devices), prefetch_buffer_size=1
        )
        iterator = iter(prefetched)
        close = iterator.close
        with leave_signals_to_main_thread():
            iterator.start_prefetch()
        try:
            yield from iterator
        except RuntimeError as error:
            check_workers_alive(error, workers)
            raise
        except KeyboardInterrupt:
            # Closing waits for the read in progress, which must not delay saving a checkpoint.
            close = threading.Thread(target=iterator.close, daemon=True).start
            raise
        finally:
            close()

    return Feed(sharded=True, chunks=chunks)


@dataclasses.dataclass(frozen=True)
class FetchedChunks:
    """The chunks of a plan with their examples, by number: what grain calls a data source."""

    plan: IndexPlan
    source: Source
    share: ProcessShare
    prepare: Callable[[Batch], Batch]

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, number: int) -> tuple[Batch, Any]:
        wanted = self.share.of(self.plan[number])
        batch = self.prepare(self.source.take(wanted.reshape(-1)))
        data = jax.tree.map(lambda x: x.reshape(len(wanted), -1, *x.shape[1:]), batch)
        # Examples were taken in the order of `wanted`: their positions on a device count up.
        local = np.arange(wanted[0].size, dtype=np.int32).reshape(1, *wanted.shape[1:])
        return data, np.repeat(local, len(wanted), axis=0)


def _fetch_chunks(chunks: FetchedChunks, ahead: int, workers: int) -> Any:
    """Returns the chunks in order as a grain dataset that threads or processes read early."""
    import grain
    from absl import flags

    if not workers or _needs_no_decoding(chunks.source):
        dataset = grain.MapDataset.source(chunks)
        return dataset.to_iter_dataset(grain.ReadOptions(ahead, ahead))
    _check_picklable(chunks)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's processes read absl's flags, which few programs do
    dataset = grain.MapDataset.source(SendableChunks(chunks))
    one_at_a_time = dataset.to_iter_dataset(grain.ReadOptions(1, 1))
    buffer = -(-ahead // workers)
    start = WorkerSetup(find_modules_imported_by_path())
    return one_at_a_time.mp_prefetch(grain.MultiprocessingOptions(workers, buffer), start)


def _needs_no_decoding(source: Source) -> bool:
    """Checks whether examples are only copied, for which processes would be slower than threads."""
    if isinstance(source, StandardizedSource):
        return _needs_no_decoding(source.source)
    if isinstance(source, StoredRows):
        return not source.readers
    return isinstance(source, Arrays | MappedArrays)


def _check_picklable(chunks: FetchedChunks) -> None:
    """Refuses a source that cannot be sent to another process, before one is started."""
    import cloudpickle

    try:
        cloudpickle.dumps(chunks)
    except Exception as error:
        raise ValueError(
            f"The source {type(chunks.source).__name__} cannot be sent to worker processes "
            f"({error}). Make its state picklable (open files in `take`), or set workers=0 to "
            "fetch by threads."
        ) from error
