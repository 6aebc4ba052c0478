"""The change feed without a connection: what is known, and what to do next.

`Feed.follow` is a generator of steps. Who drives it (`_sync.py`, `_async.py`) does each step and sends the answer, or
throws `Lost` or `TooOld`. It is lossless by its order: first LISTEN, then the cursor, then everybody's status, then the
notifications. What these leave out is read from the feed, and so is everything that happened while the connection was
down.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

from ._user import COLUMNS, Change, PresenceError, User, user_of_notification, user_of_row

MIN_DELAY, MAX_DELAY = 0.2, 5.0  # seconds between two attempts to connect: each is twice as long as the one before
MAX_SEQ = 2**63 - 1

OnStatus = Callable[[str, BaseException | None], object]


@dataclass(frozen=True)
class Connect:
    """Connect. The answer is ignored."""


@dataclass(frozen=True)
class Query:
    """Run a query. The answer is its rows."""

    sql: str
    params: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Wait:
    """Wait for notifications, this many seconds at most. The answer is a list of their payloads."""

    seconds: float


@dataclass(frozen=True)
class Pause:
    """The connection is of no use any more: close it, and do nothing for this many seconds."""

    seconds: float


@dataclass(frozen=True)
class Tell:
    """Tell the user of the package these changes. The answer, once they have been taken, is ignored."""

    changes: list[Change]


Step = Connect | Query | Wait | Pause | Tell
Steps = Generator[Step, Any, Any]


class Lost(Exception):
    """The connection is lost; the cause is `__cause__`."""


class TooOld(Exception):
    """The feed does not reach back to the position, or is of another epoch."""


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class Feed:
    def __init__(self, schema: str, interval: float, on_status: OnStatus | None) -> None:
        self.schema = quote(schema)
        self.interval = interval
        self.on_status = on_status
        self.users: dict[UUID, User] = {}
        self.status = "connecting"
        self.error: BaseException | None = None
        self.updated_at: datetime | None = None
        self.epoch: str | None = None
        self.seq = 0
        self.delay = MIN_DELAY

    def follow(self) -> Steps:
        while True:
            try:
                yield Connect()
                yield from self._listen()
                yield from self.catch_up()
                while True:
                    payloads: list[str] = yield Wait(self.interval)
                    self.delay = MIN_DELAY
                    is_complete = bool(payloads)
                    for payload in payloads:
                        changes = self.apply(payload)
                        is_complete = is_complete and changes is not None
                        if changes:
                            yield Tell(changes)
                    if is_complete:
                        self._set_status("live")
                    else:
                        yield from self.catch_up()
            except Lost as lost:
                self._set_status("stale", lost.__cause__)
                # Not all at the same moment when a server is back.
                yield Pause(self.delay * random.uniform(0.75, 1.25))
                self.delay = min(self.delay * 2, MAX_DELAY)

    def _listen(self) -> Steps:
        ((channel,),) = yield Query("SELECT current_setting('presence.channel', true)")
        if not channel:
            raise PresenceError("the server does not have pg_presence in shared_preload_libraries")
        yield Query(f"LISTEN {quote(channel)}")

    def apply(self, payload: str) -> list[Change] | None:
        """Applies a notification. Returns None if the feed has to be read: changes before it or in it are missing."""
        try:
            message = json.loads(payload)
            prev, seq = message["prev"], message["seq"]
            if message["epoch"] != self.epoch or not prev <= self.seq or type(seq) is not int or seq > MAX_SEQ:
                return None
            users = [user_of_notification(change) for change in message["changes"]]
        except Exception:
            return None  # anybody can NOTIFY, with any payload
        if any(user.seq > seq for user in users):
            return None
        changes = self._update(users)
        self.seq = max(self.seq, seq)
        return changes

    def catch_up(self) -> Steps:
        """Reads the changes since the last one known or, where that is not possible, everybody's status."""
        schema = self.schema.replace("%", "%%")  # as there are parameters
        since = f"SELECT {COLUMNS} FROM {schema}.changes_since(%s, %s)"
        try:
            while self.epoch and (rows := (yield Query(since, (self.seq, self.epoch)))):
                changes = self._update(user for user in map(user_of_row, rows) if user)
                self.seq = rows[-1][0]
                yield Tell(changes)
        except TooOld:
            self.epoch = None
        ((epoch, seq),) = yield Query(f"SELECT epoch, seq FROM {self.schema}.presence_cursor()")
        # A known seq beyond the end of the feed came from a forged notification: changes up to it would be missed.
        if epoch != self.epoch or seq < self.seq:
            rows = yield Query(f"SELECT {COLUMNS} FROM {self.schema}.user_presence")
            changes = self._replace(user for user in map(user_of_row, rows) if user)
            self.epoch, self.seq = epoch, seq
            yield Tell(changes)
        self._set_status("live")

    def _update(self, users: Iterable[User]) -> list[Change]:
        changes = []
        for user in users:
            previous = self.users.get(user.user_id)
            if previous is None or user.seq > previous.seq:
                self.users[user.user_id] = user
                changes.append(Change(user.user_id, user, previous))
        return changes

    def _replace(self, users: Iterable[User]) -> list[Change]:
        """Takes everybody in, and returns what is different. The numbers of another epoch cannot be compared."""
        gone = dict(self.users)
        changes = []
        for user in sorted(users, key=lambda user: user.seq):
            previous = gone.pop(user.user_id, None)
            self.users[user.user_id] = user
            if previous is None or (user.status, user.changed_at) != (previous.status, previous.changed_at):
                changes.append(Change(user.user_id, user, previous))
        for user_id, previous in gone.items():
            del self.users[user_id]
            changes.append(Change(user_id, None, previous))
        return changes

    def _set_status(self, status: str, error: BaseException | None = None) -> None:
        if status == "live":
            self.updated_at = datetime.now(timezone.utc)
        is_new = status != self.status or str(error) != str(self.error)
        self.status, self.error = status, error
        if is_new and self.on_status:
            self.on_status(status, error)
