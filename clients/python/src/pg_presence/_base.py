"""What both followers have in common: their options, what is known, and how a step ends."""

from __future__ import annotations

import math
import socket
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import SnapshotTooOld

from ._feed import Feed, Lost, OnStatus, Step, Tell, TooOld
from ._user import Change, PresenceError, User

HINTS = {
    "3F000": "is the extension installed in this database, and in the schema {schema}?",
    "42883": "is the extension installed in this database, and in the schema {schema}?",
    "42501": "the role has to be a reader: SELECT {schema}.grant_reader('…')",
}


class Base:
    _is_closed = False

    def __init__(self, schema: str, on_status: OnStatus | None, timeout: float, interval: float) -> None:
        self._timeout = timeout
        self._feed = Feed(schema, interval, on_status)
        self._steps = self._feed.follow()
        # A step that is interrupted, as by a cancellation, is done again.
        self._step: Step = next(self._steps)
        self._pending: deque[Change] = deque()

    @property
    def users(self) -> Mapping[UUID, User]:
        """Everybody who is known, by ID. It changes while the follower is iterated."""
        return MappingProxyType(self._feed.users)

    def online_users(self) -> list[User]:
        """Returns those who are active."""
        return [user for user in list(self._feed.users.values()) if user.is_online]

    def status_of(self, user_id: UUID | str) -> str:
        """Returns `active` or `inactive`. Who is not known is inactive."""
        user = self._feed.users.get(user_id if isinstance(user_id, UUID) else UUID(user_id))
        return user.status if user else "inactive"

    @property
    def status(self) -> str:
        """`connecting`: nothing is known yet. `live`: what is known is right. `stale`: it is as of `updated_at`."""
        return self._feed.status

    @property
    def error(self) -> BaseException | None:
        """Why the status is `stale`."""
        return self._feed.error

    @property
    def updated_at(self) -> datetime | None:
        """When what is known was last known to be right, by this computer's clock."""
        return self._feed.updated_at

    def _go_on(self, answer: Any) -> None:
        """Goes on to the next step."""
        self._step = self._steps.send(answer)
        if isinstance(self._step, Tell):
            self._pending.extend(self._step.changes)

    def _go_on_after(self, error: BaseException) -> None:
        """Goes on after a step that failed; raises an error that reconnecting does not mend."""
        if isinstance(error, SnapshotTooOld):
            failure: Exception = TooOld()
        elif isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError, OSError)):
            failure = Lost()
        else:
            hint = HINTS.get(getattr(error, "sqlstate", None) or "", "").format(schema=self._feed.schema)
            failure = PresenceError("; ".join(filter(None, [str(error), hint])))
        failure.__cause__ = error
        self._step = self._steps.throw(failure)


def defaults(conninfo: str, timeout: float) -> dict[str, Any]:
    """Returns the parameters of a connection string, with limits where it says nothing."""
    seconds = math.ceil(timeout)
    limits = {"connect_timeout": max(2, seconds), "keepalives_idle": seconds, "keepalives_interval": seconds}
    return limits | {"keepalives_count": 3, "fallback_application_name": "pg_presence"} | conninfo_to_dict(conninfo)


def shut_down(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Wakes whoever waits for an answer. libpq has no time limit, and asking the server to cancel may hang, too."""
    try:
        half = socket.socket(fileno=connection.fileno())
    except (psycopg.Error, OSError):
        return  # it is closed
    try:
        half.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is lost already
    finally:
        half.detach()


def statement(text: str) -> sql.SQL:
    # A literal for type checkers: it is built of literals and quoted names.
    return sql.SQL(text)


def no_answer(timeout: float) -> TimeoutError:
    return TimeoutError(f"the server has not answered within {timeout:g} s")
