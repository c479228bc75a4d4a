import gc
import os
import signal
import time

import pytest

from mmjax.interrupts import Interrupted, raise_on_signals


def send_signal_once(phase, info):
    if send_signal_once in gc.callbacks:
        gc.callbacks.remove(send_signal_once)
        os.kill(os.getpid(), signal.SIGTERM)


class SendSignalWhenFreed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("place", ["garbage collector", "finalizer", "code"])
def test_a_signal_ends_a_command_wherever_it_arrives(place):
    with pytest.raises(Interrupted) as ending, raise_on_signals():
        if place == "garbage collector":
            gc.callbacks.append(send_signal_once)
            gc.collect()
        elif place == "finalizer":
            SendSignalWhenFreed()
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)  # the exception ends it
    assert ending.value.signum == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
