"""The follower for threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from ._base import Base, defaults, no_answer, shut_down, statement
from ._feed import Connect, OnStatus, Pause, Query, Step, Wait
from ._user import Change


class Follower(Base):
    """An iterator of changes: first everybody who is known to the database, then each change. It reconnects by itself.

    - `conninfo`: a connection string. What it does not say is in environment variables such as `PGHOST`
    - `connect`: used instead of it: returns a new connection, which the follower will close
    - `schema`: the schema of the extension
    - `on_status`: called with `status` and `error` when these change
    - `timeout`: the seconds until a server that does not answer is given up
    - `interval`: how often the feed is read, in seconds, even if no notification arrives
    """

    def __init__(
        self,
        conninfo: str = "",
        *,
        connect: Callable[[], psycopg.Connection[Any]] | None = None,
        schema: str = "presence",
        on_status: OnStatus | None = None,
        timeout: float = 10,
        interval: float = 30,
    ) -> None:
        super().__init__(schema, on_status, timeout, interval)
        self._connect = connect or (lambda: psycopg.connect(**defaults(conninfo, timeout)))
        self._connection: psycopg.Connection[Any] | None = None
        self._closing = threading.Event()
        self._busy = threading.Lock()  # held while a thread iterates
        self._lock = threading.Lock()  # held while the connection is closed, or shut down by another thread

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Follower:
        return self

    def __next__(self) -> Change:
        with self._busy:
            while not self._closing.is_set():
                if self._pending:
                    return self._pending.popleft()
                try:
                    answer = self._do(self._step)
                except (psycopg.Error, OSError) as error:
                    if not self._closing.is_set():
                        self._fail(error)
                else:
                    self._go_on(answer)
            self._disconnect()
            raise StopIteration

    def close(self) -> None:
        """Ends the iteration, also that of another thread, and closes the connection."""
        self._closing.set()
        with self._lock:
            if self._connection:
                shut_down(self._connection)
        # Otherwise the thread that iterates closes it.
        if self._busy.acquire(blocking=False):
            self._disconnect()
            self._busy.release()

    def _fail(self, error: BaseException) -> None:
        try:
            self._go_on_after(error)
        except BaseException:
            self._closing.set()
            self._disconnect()
            raise

    def _do(self, step: Step) -> Any:
        match step:
            case Connect():
                self._disconnect()
                self._connection = self._connect()
                self._connection.autocommit = True
            case Query():
                return self._query(step)
            case Wait():
                # Exhausts the generator: notifications left in it would be lost.
                return [notify.payload for notify in self._db.notifies(timeout=step.seconds, stop_after=1)]
            case Pause():
                self._disconnect()
                self._closing.wait(step.seconds)

    def _query(self, query: Query) -> list[Any]:
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            shut_down(self._db)

        timer = threading.Timer(self._timeout, expire)
        timer.start()
        try:
            # Whatever the connection's own kind of cursor and rows is.
            cursor = psycopg.Cursor(self._db, row_factory=tuple_row)
            cursor.execute(statement(query.sql), query.params or None)
            return cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError as error:
            if expired.is_set():
                raise no_answer(self._timeout) from error
            raise
        finally:
            timer.cancel()
            timer.join()

    @property
    def _db(self) -> psycopg.Connection[Any]:
        assert self._connection
        return self._connection

    def _disconnect(self) -> None:
        with self._lock:
            if self._connection:
                self._connection.close()
                self._connection = None
