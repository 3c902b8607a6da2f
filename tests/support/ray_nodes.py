"""A Ray cluster of several nodes on this machine: a raylet each, as on as many machines."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

ATTEMPTS = 6
OBJECT_STORE_BYTES = 200_000_000


@contextmanager
def nodes(number: int, *, cpus: int, gpus: int = 0) -> Iterator[str]:
    """Starts the nodes and yields the cluster's address; stops them whatever happens."""
    from ray.cluster_utils import Cluster

    from safer_steer_verl.local_ray import leave_out_helpers

    leave_out_helpers()
    sizes = {"num_cpus": cpus, "num_gpus": gpus, "object_store_memory": OBJECT_STORE_BYTES}
    with mock.patch.dict(os.environ):
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # hidden GPUs are no limit for Ray's logical ones
        for attempt in range(1, ATTEMPTS + 1):
            cluster = Cluster()
            try:
                for _ in range(number):
                    cluster.add_node(**sizes)
                cluster.wait_for_nodes(timeout=120)
                break
            except Exception as error:  # Ray raises a bare one; it gives a raylet 30 s, too few on a busy machine
                cluster.shutdown()
                if attempt == ATTEMPTS or "timed out" not in str(error).lower():
                    raise
                time.sleep(5)
    try:
        yield cluster.address
    finally:
        cluster.shutdown()
