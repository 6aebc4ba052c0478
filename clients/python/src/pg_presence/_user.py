"""Users, and their changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

# Times are read as text in UTC, as they are in notifications: whatever the server's DateStyle is.
_FORMAT = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
_TIMES = ", ".join(map(_FORMAT.format, ("changed_at", "last_seen")))
_STATUSES = ("active", "idle", "busy", "inactive")
COLUMNS = f"seq, user_id::text, user_key, status::text, {_TIMES}"


class PresenceError(Exception):
    """What reconnecting cannot mend, such as a missing privilege. `__cause__` is psycopg's error."""


@dataclass(frozen=True, slots=True)
class User:
    """A user as of the last change of the status; the columns are those of `user_presence`."""

    user_id: UUID
    user_key: str | None
    """The user's own ID, where that is not a UUID."""
    status: str
    """`active`, `idle`, `busy` or `inactive`."""
    changed_at: datetime
    last_seen: datetime | None
    seq: int
    """The number of the change in the change feed."""

    @property
    def is_online(self) -> bool:
        return self.status != "inactive"


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one user's status."""

    id: UUID
    user: User | None
    """None if the user is gone."""
    previous: User | None = None
    """None if the user was not known."""

    @property
    def status(self) -> str:
        """`active`, `idle`, `busy` or `inactive`: who is gone is inactive."""
        return self.user.status if self.user else "inactive"

    @property
    def is_online(self) -> bool:
        return self.status != "inactive"


def user_of_row(row: Iterable[Any]) -> User | None:
    """Returns the user in a row of `COLUMNS`; None if the user has been forgotten."""
    seq, user_id, user_key, status, changed_at, last_seen = row
    if user_id is None:
        return None
    return User(UUID(user_id), user_key, status, _time(changed_at), _time(last_seen) if last_seen else None, seq)


def user_of_notification(change: dict[str, Any]) -> User:
    """Returns the user in one of the changes of a notification. Raises an error if it is not one of pg_presence's."""
    if type(change["seq"]) is not int or change["status"] not in _STATUSES:
        raise ValueError("not a change")
    row = (change["seq"], change["user_id"], change.get("key"), change["status"], change["at"], change.get("last_seen"))
    user = user_of_row(row)
    if user is None:
        raise ValueError("a change of nobody")
    return user


def _time(text: str) -> datetime:
    # Python 3.10 does not read a "Z".
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
