"""The tables of pg_presence for SQLAlchemy 2. Their metadata is one of its own, so that neither create_all() nor Alembic
touches them."""

from datetime import datetime
from typing import Any, Optional
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, FetchedValue, MetaData, Text
from sqlalchemy.dialects.postgresql import ENUM, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Presence(DeclarativeBase):
    metadata = MetaData(schema="presence")
    type_annotation_map = {str: Text, int: BigInteger, datetime: DateTime(timezone=True), dict[str, Any]: JSONB}


Status = ENUM("active", "idle", "busy", "inactive", name="presence_status", schema="presence", create_type=False)


class UserSession(Presence):
    __tablename__ = "user_sessions"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=FetchedValue())
    user_id: Mapped[UUID] = mapped_column(server_default=FetchedValue())
    auth_id: Mapped[UUID] = mapped_column(server_default=FetchedValue())
    session_token: Mapped[str] = mapped_column(server_default=FetchedValue())
    is_active: Mapped[bool] = mapped_column(server_default=FetchedValue())
    last_activity: Mapped[datetime] = mapped_column(server_default=FetchedValue())
    created_at: Mapped[datetime] = mapped_column(server_default=FetchedValue())
    expires_at: Mapped[datetime] = mapped_column(server_default=FetchedValue())
    # An attribute cannot be called metadata.
    data: Mapped[dict[str, Any]] = mapped_column("metadata", server_default=FetchedValue())
    ended_at: Mapped[Optional[datetime]]
    user_key: Mapped[Optional[str]]


class UserPresence(Presence):
    __tablename__ = "user_presence"

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_key: Mapped[Optional[str]]
    status: Mapped[str] = mapped_column(Status)
    is_online: Mapped[bool]
    last_seen: Mapped[Optional[datetime]]
    changed_at: Mapped[datetime]
    seq: Mapped[int]
    idle_since: Mapped[Optional[datetime]]
    status_text: Mapped[Optional[str]]
    emoji: Mapped[Optional[str]]
    status_expires_at: Mapped[Optional[datetime]]


class PresenceChange(Presence):
    __tablename__ = "presence_changes"

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    user_id: Mapped[Optional[UUID]]
    user_key: Mapped[Optional[str]]
    status: Mapped[str] = mapped_column(Status)
    previous: Mapped[str] = mapped_column(Status)
    changed_at: Mapped[datetime]
    last_seen: Mapped[Optional[datetime]]
    reason: Mapped[str]
    details: Mapped[bool]
