"""examples/models for SQLAlchemy: the columns are those of the tables, and they can be read. Alembic leaves the tables alone
where the page says so."""

import sys
from pathlib import Path
from uuid import uuid4

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Column, MetaData, Table, Uuid, create_engine, func, inspect, select
from sqlalchemy.orm import Session

sys.path.append(str(Path(__file__).parents[2] / "examples/models"))
from sqlalchemy_models import Presence, PresenceChange, UserPresence, UserSession  # noqa: E402


def columns(connection):
    inspector = inspect(connection)
    for table in Presence.metadata.sorted_tables:
        real = inspector.get_columns(table.name, schema=table.schema)
        assert [column["name"] for column in real] == [column.name for column in table.columns], table
        for there, here in zip(real, table.columns):
            kinds = [kind.compile(connection.dialect) for kind in (there["type"], here.type)]
            assert kinds[0] == kinds[1], f"{here}: {kinds}"
            assert there["nullable"] == here.nullable, here
        key = inspector.get_pk_constraint(table.name, schema=table.schema)["constrained_columns"]
        assert key == [column.name for column in table.primary_key], table


def rows(engine):
    user = uuid4()
    with Session(engine) as db:
        own = UserSession(user_id=user, data={"device": "phone"})
        db.add(own)
        db.commit()
        assert own.auth_id == user and own.is_active and own.session_token.startswith("sha256:"), own
        assert db.scalar(select(func.presence.is_online(user)))
        assert db.scalar(select(UserSession).where(UserSession.user_id == user)).data == {"device": "phone"}
        for model in (UserPresence, PresenceChange):
            db.scalars(select(model)).all()


def migrations(connection):
    own = MetaData()
    Table("app_user", own, Column("id", Uuid, primary_key=True))

    def dropped(**options):
        changes = compare_metadata(MigrationContext.configure(connection, opts=options), own)
        return [change[1].name for change in changes if change[0] == "remove_table"]

    not_ours = lambda name, kind, parents: not (kind == "schema" and name == "presence")
    assert dropped() == []
    assert "user_sessions" in dropped(include_schemas=True)
    assert dropped(include_schemas=True, include_name=not_ours) == []


if __name__ == "__main__":
    engine = create_engine("postgresql+psycopg://")
    with engine.connect() as connection:
        columns(connection)
        migrations(connection)
    rows(engine)
    Presence.metadata.create_all(engine)  # does nothing, as they exist
