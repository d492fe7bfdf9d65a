"""The two ways in which caloforge stops: the request was wrong, or the work failed."""

from __future__ import annotations

__all__ = ["RequestError", "WorkError"]


class RequestError(Exception):
    """The request cannot be carried out as it stands.

    The message is one line that says what is wrong and what to do about it; the command line
    prints it and exits with code 2.
    """


class WorkError(Exception):
    """A sound request failed while it was carried out; the command line exits with code 1."""
