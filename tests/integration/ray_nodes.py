"""A Ray of two nodes on the loopback interface, until standard input closes; prints its address.

Ray reads the settings when it is imported, and both nodes and whoever joins must have the same.
"""

from __future__ import annotations

import os
import sys

ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback alone
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}


def main() -> None:
    os.environ.update(ENVIRONMENT)
    from ray.cluster_utils import Cluster

    store = 80 * 1024 * 1024
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "object_store_memory": store, "include_dashboard": False},
    )
    try:
        cluster.add_node(num_cpus=2, object_store_memory=store)
        print(cluster.address, flush=True)  # noqa: T201
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
