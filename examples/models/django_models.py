"""The tables of pg_presence for Django. They are not managed: migrations neither create nor alter them."""

from django.db import models


class Status(models.TextChoices):
    ACTIVE = "active"
    IDLE = "idle"
    BUSY = "busy"
    INACTIVE = "inactive"


class UserSession(models.Model):
    """Start, beat and end sessions with the functions; read them here."""

    id = models.UUIDField(primary_key=True)
    user_id = models.UUIDField()
    auth_id = models.UUIDField()
    session_token = models.TextField()
    is_active = models.BooleanField(default=True)
    last_activity = models.DateTimeField()
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    metadata = models.JSONField(default=dict)
    ended_at = models.DateTimeField(null=True)
    user_key = models.TextField(null=True)

    class Meta:
        managed = False
        db_table = '"presence"."user_sessions"'


class UserPresence(models.Model):
    user_id = models.UUIDField(primary_key=True)
    user_key = models.TextField(null=True)
    status = models.TextField(choices=Status)
    is_online = models.BooleanField()
    last_seen = models.DateTimeField(null=True)
    changed_at = models.DateTimeField()
    seq = models.BigIntegerField()
    idle_since = models.DateTimeField(null=True)
    status_text = models.TextField(null=True)
    emoji = models.TextField(null=True)
    status_expires_at = models.DateTimeField(null=True)

    class Meta:
        managed = False
        db_table = '"presence"."user_presence"'


class PresenceChange(models.Model):
    seq = models.BigIntegerField(primary_key=True)
    user_id = models.UUIDField(null=True)
    user_key = models.TextField(null=True)
    status = models.TextField(choices=Status)
    previous = models.TextField(choices=Status)
    changed_at = models.DateTimeField()
    last_seen = models.DateTimeField(null=True)
    reason = models.TextField()
    details = models.BooleanField()

    class Meta:
        managed = False
        db_table = '"presence"."presence_changes"'


class IsOnline(models.Func):
    """User.objects.annotate(is_online=IsOnline("id")); where the id is a number, IsOnline(PresenceId("id"))."""

    function = "presence.is_online"
    output_field = models.BooleanField()


class LastSeen(models.Func):
    function = "presence.last_seen"
    output_field = models.DateTimeField()


class PresenceId(models.Func):
    function = "presence.presence_id"
    output_field = models.UUIDField()
