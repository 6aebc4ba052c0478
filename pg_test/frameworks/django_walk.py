"""What docs/frameworks.md shows for Django, literally, in a project of its own: users sign in, are there, and sign out."""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

from documented import PAGE

MODELS = Path(__file__).parents[2] / "examples/models/django_models.py"
CHAPTER = PAGE.split("\n## Django, ")[1].split("\n## ")[0]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", CHAPTER, re.MULTILINE | re.DOTALL)

urlpatterns = [path("", lambda request: HttpResponse(request.user.get_username()))]


def main(directory):
    configuration = {
        "INSTALLED_APPS": ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
        "MIDDLEWARE": [
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
    }
    for app in ("presence", "people"):
        directory.joinpath(app).mkdir()
        directory.joinpath(app, "__init__.py").touch()
    shutil.copy(MODELS, directory / "presence/models.py")
    for block in BLOCKS:
        if file := re.match(r"# (\S+\.py)\n", block):
            directory.joinpath(file[1]).write_text(block)
        else:
            exec(block, configuration)
    sys.path.insert(0, str(directory))
    database = {"ENGINE": "django.db.backends.postgresql", "HOST": os.environ["PGHOST"], "USER": os.environ["PGUSER"]}
    settings.configure(
        INSTALLED_APPS=configuration["INSTALLED_APPS"],
        MIDDLEWARE=configuration["MIDDLEWARE"],
        DATABASES={"default": database | {"NAME": os.environ["PGDATABASE"]}},
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["testserver"],
        SECRET_KEY="of a test",
        USE_TZ=True,
    )
    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.test import Client

    from people.views import people
    from presence.sessions import call

    call_command("migrate", verbosity=0)
    urlpatterns.append(path("people", people))
    for name in ("Anna", "Ben"):
        User.objects.create_user(name, password="of a test")

    def is_online():
        return {user["username"]: user["is_online"] for user in Client().get("/people").json()["people"]}

    assert is_online() == {"Anna": False, "Ben": False}
    phone, laptop, bens = Client(), Client(), Client()
    for client in (phone, laptop):
        assert client.login(username="Anna", password="of a test")
    assert bens.login(username="Ben", password="of a test")
    assert is_online() == {"Anna": True, "Ben": True}

    # A request makes a session live that has timed out.
    session = phone.session["presence"]
    call("SELECT presence.release_session(%s, '1 microsecond')", session)
    call("SELECT presence.release_session(%s, '1 microsecond')", laptop.session["presence"])
    assert is_online() == {"Anna": False, "Ben": True}
    assert phone.get("/").content == b"Anna"
    assert is_online() == {"Anna": True, "Ben": True}

    bens.logout()
    assert is_online() == {"Anna": True, "Ben": False}
    call("SELECT presence.end_user_sessions(presence.presence_id(%s))", User.objects.get(username="Anna").pk)
    assert is_online() == {"Anna": False, "Ben": False}
    # Who was signed out elsewhere is signed out here.
    assert phone.get("/").content == b""
    assert "presence" not in phone.session

    # A session that the server has no longer is started again.
    assert phone.login(username="Anna", password="of a test")
    call("SELECT presence.forget_user(presence.presence_id(%s))", User.objects.get(username="Anna").pk)
    assert phone.get("/").content == b"Anna"
    assert is_online() == {"Anna": True, "Ben": False}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(Path(directory))
