"""Django's PostgreSQL with a pool for each lane of the console instead of one for all."""

from threading import Lock
from typing import Any, ClassVar

import psycopg
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base
from psycopg_pool import ConnectionPool, PoolTimeout, TooManyRequests

from gateway.database import lanes
from gateway.database.lanes import Lane


class Busy(psycopg.OperationalError):
    """All connections of a lane are in use, and its queue is full or did not move in time."""


class LanePool(ConnectionPool[Any]):
    """Knows how many of its connections are in use: a server that is away looks the same else."""

    def __init__(self, **options: Any) -> None:
        self._in_use = 0
        self._counting = Lock()
        super().__init__(**options)

    @property
    def is_full(self) -> bool:
        return self._in_use >= self.max_size

    def getconn(self, timeout: float | None = None) -> Any:
        connection = super().getconn(timeout)
        self._count(1)
        return connection

    def putconn(self, conn: Any) -> None:
        self._count(-1)
        super().putconn(conn)

    def _count(self, change: int) -> None:
        with self._counting:
            self._in_use += change


class DatabaseWrapper(base.DatabaseWrapper):
    _lane_pools: ClassVar[dict[tuple[str, str], LanePool]] = {}

    @property
    def pool(self) -> LanePool | None:
        if not self.settings_dict["OPTIONS"].get("pool") or self.alias == NO_DB_ALIAS:
            return None
        lane = lanes.current()
        key = (self.alias, lane.name if lane else "")
        if key not in self._lane_pools:
            # Where two threads make one, the first is kept; neither is open yet.
            self._lane_pools.setdefault(key, self._pool_of(lane))
        return self._lane_pools[key]

    def _pool_of(self, lane: Lane | None) -> LanePool:
        options = dict(self.settings_dict["OPTIONS"]["pool"])
        kwargs = self.get_connection_params() | {"autocommit": True}
        if lane is not None:
            options |= {
                "max_size": lane.connections(options["max_size"]),
                "max_waiting": lane.waiting_max,
            }
            kwargs["options"] += f" -c statement_timeout={lane.statement_timeout_ms}"
        return LanePool(
            kwargs=kwargs,
            open=False,
            configure=self._configure_connection,  # type: ignore[attr-defined]
            check=ConnectionPool.check_connection,
            **options,
        )

    def close_pool(self) -> None:
        for key in [key for key in self._lane_pools if key[0] == self.alias]:
            self._lane_pools.pop(key).close()

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        try:
            return super().get_new_connection(conn_params)
        except (PoolTimeout, TooManyRequests) as waited:
            pool = self.pool
            if isinstance(waited, TooManyRequests) or (pool is not None and pool.is_full):
                raise Busy(str(waited)) from waited
            raise
