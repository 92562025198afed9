"""Worker processes that make the batches of a loader."""

from multiprocessing import current_process, resource_sharer
from multiprocessing.connection import Client

import pytest

from seqmem.io.interrupts import Interrupted
from tests.data.test_generated import Recall


@pytest.mark.parametrize("closed", ["before the greeting", "before the request"])
def test_a_worker_is_silent_where_its_reader_is_interrupted(closed, capfd, monkeypatch):
    """A signal may come between the connection to a worker and the request for the memory of a batch."""

    def interrupted(connection):
        address, _ = connection
        if closed == "before the request":
            Client(address, authkey=current_process().authkey).close()
        else:
            Client(address).close()
        raise Interrupted

    loader = Recall(num_workers=1).loader("train", 8)
    with monkeypatch.context() as patch:
        patch.setattr(resource_sharer._resource_sharer, "get_connection", interrupted)
        with pytest.raises(Interrupted):
            next(iter(loader))
    number, batch = loader._iterator._data_queue.get(timeout=60)  # the worker serves the next one after that connection
    assert (number, len(batch)) == (1, 8)
    assert capfd.readouterr().err == ""
