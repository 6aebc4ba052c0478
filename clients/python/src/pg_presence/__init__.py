"""Who is online: follows the statuses of the PostgreSQL extension pg_presence, and misses none.

`Follower` is an iterator of changes, `AsyncFollower` an asynchronous one.
"""

from importlib.metadata import version

from ._async import AsyncFollower
from ._sync import Follower
from ._user import Change, PresenceError, User

__all__ = ["AsyncFollower", "Change", "Follower", "PresenceError", "User"]
__version__ = version("pg-presence")
