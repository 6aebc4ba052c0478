"""The follower for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from ._base import Base, defaults, no_answer, shut_down, statement
from ._feed import Connect, OnStatus, Pause, Query, Step, Wait
from ._user import Change


class AsyncFollower(Base):
    """An asynchronous iterator of changes, with the options of `Follower`.

    `connect` is a coroutine function, and `on_status` an ordinary one. An `anext()` that is cancelled loses no change.
    """

    def __init__(
        self,
        conninfo: str = "",
        *,
        connect: Callable[[], Awaitable[psycopg.AsyncConnection[Any]]] | None = None,
        schema: str = "presence",
        on_status: OnStatus | None = None,
        timeout: float = 10,
        interval: float = 30,
    ) -> None:
        super().__init__(schema, on_status, timeout, interval)
        self._connect = connect or (lambda: psycopg.AsyncConnection.connect(**defaults(conninfo, timeout)))
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._closing = asyncio.Event()
        self._is_busy = False

    async def __aenter__(self) -> AsyncFollower:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncFollower:
        return self

    async def __anext__(self) -> Change:
        if self._is_busy:
            raise RuntimeError("another task iterates over this follower")
        self._is_busy = True
        try:
            while not self._closing.is_set():
                if self._pending:
                    return self._pending.popleft()
                try:
                    answer = await self._do(self._step)
                except (psycopg.Error, OSError) as error:
                    if not self._closing.is_set():
                        await self._fail(error)
                else:
                    self._go_on(answer)
            await self._disconnect()
            raise StopAsyncIteration
        finally:
            self._is_busy = False

    async def close(self) -> None:
        """Ends the iteration, also that of another task, and closes the connection."""
        self._closing.set()
        if self._connection:
            shut_down(self._connection)
        # Otherwise the task that iterates closes it.
        if not self._is_busy:
            await self._disconnect()

    async def _fail(self, error: BaseException) -> None:
        try:
            self._go_on_after(error)
        except BaseException:
            self._closing.set()
            await self._disconnect()
            raise

    async def _do(self, step: Step) -> Any:
        match step:
            case Connect():
                await self._disconnect()
                self._connection = await self._connect()
                await self._connection.set_autocommit(True)
            case Query():
                return await self._query(step)
            case Wait():
                # Exhausts the generator: notifications left in it would be lost.
                return [notify.payload async for notify in self._db.notifies(timeout=step.seconds, stop_after=1)]
            case Pause():
                await self._disconnect()
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), step.seconds)

    async def _query(self, query: Query) -> list[Any]:
        expired = asyncio.Event()

        def expire() -> None:
            expired.set()
            shut_down(self._db)

        # Not asyncio.timeout(): psycopg answers a cancellation by asking the server to cancel, and waits for that.
        timer = asyncio.get_running_loop().call_later(self._timeout, expire)
        try:
            # Whatever the connection's own kind of cursor and rows is.
            cursor = psycopg.AsyncCursor(self._db, row_factory=tuple_row)
            await cursor.execute(statement(query.sql), query.params or None)
            return await cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError as error:
            if expired.is_set():
                raise no_answer(self._timeout) from error
            raise
        finally:
            timer.cancel()

    @property
    def _db(self) -> psycopg.AsyncConnection[Any]:
        assert self._connection
        return self._connection

    async def _disconnect(self) -> None:
        if self._connection:
            connection, self._connection = self._connection, None
            await connection.close()
