"""Wait for what another process does."""

from time import monotonic, sleep


def wait_until(condition, seconds=100):
    """Fail after some seconds instead of waiting for ever."""
    end = monotonic() + seconds
    while not condition():
        assert monotonic() < end
        sleep(0.02)


def received_until(pool, condition):
    wait_until(lambda: pool._receive() or condition())
