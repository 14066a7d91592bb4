"""Connect to threads, local processes, batch queues or a running Dask scheduler."""

from scalehsi.cluster.connect import Cluster, connect

__all__ = ["Cluster", "connect"]
