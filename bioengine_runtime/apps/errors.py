"""What can go wrong with an app, in words its author or operator can act on."""

from __future__ import annotations


class AppError(Exception):
    """Something about one app; the message names the app, the problem and the way out."""


class BadApp(AppError):
    """The app's own files or settings are wrong; only a change of them helps."""


class PrepareFailed(AppError):
    """The app's environment could not be built, or its code could not be loaded in it."""


class Refused(AppError):
    """The app is not ours, or not in the state the caller expected; nothing was changed."""


class UnknownApp(AppError):
    """No app of this id runs here."""
