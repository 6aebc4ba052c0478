"""An application in Django with examples/models as one of its apps: it migrates, and reads the models."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import django
from django.conf import settings

MODELS = Path(__file__).parents[2] / "examples/models/django_models.py"
SHOP = """
from django.db import models

class Customer(models.Model):
    name = models.TextField()
"""


def main(directory):
    for app in ("shop", "presence"):
        directory.joinpath(app).mkdir()
        directory.joinpath(app, "__init__.py").touch()
    directory.joinpath("shop/models.py").write_text(SHOP)
    shutil.copy(MODELS, directory / "presence/models.py")
    sys.path.insert(0, str(directory))
    database = {"ENGINE": "django.db.backends.postgresql", "HOST": os.environ["PGHOST"], "USER": os.environ["PGUSER"]}
    settings.configure(
        INSTALLED_APPS=["presence", "shop"],
        DATABASES={"default": database | {"NAME": os.environ["PGDATABASE"]}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
    )
    django.setup()
    from django.core.management import call_command
    from django.db import connection

    call_command("makemigrations", "presence", "shop", verbosity=0)
    call_command("migrate", verbosity=0)
    # There is nothing left to migrate.
    call_command("makemigrations", check=True, verbosity=0)

    from presence.models import IsOnline, LastSeen, PresenceChange, PresenceId, UserPresence, UserSession
    from shop.models import Customer

    anna, ben = Customer.objects.create(name="Anna"), Customer.objects.create(name="Ben")
    with connection.cursor() as cursor:
        start = "SELECT session_id FROM presence.start_session(user_key => %s::text, metadata => %s)"
        cursor.execute(start, [anna.id, '{"device": "phone"}'])
        (session,) = cursor.fetchone()
        cursor.execute("SELECT presence.heartbeat(%s)", [session])
        assert cursor.fetchone() == ("ok",)
    customers = Customer.objects.annotate(is_online=IsOnline(PresenceId("id")), last_seen=LastSeen(PresenceId("id")))
    assert list(customers.order_by("id").values_list("name", "is_online")) == [("Anna", True), ("Ben", False)]
    assert customers.get(id=anna.id).last_seen and not customers.get(id=ben.id).last_seen
    assert list(Customer.objects.filter(IsOnline(PresenceId("id")))) == [anna]
    own = UserSession.objects.get(id=session)
    assert own.metadata == {"device": "phone"} and own.user_key == str(anna.id) and own.ended_at is None
    list(UserPresence.objects.all())
    list(PresenceChange.objects.all())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(Path(directory))
