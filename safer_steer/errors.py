"""The one exception a user is meant to read: `UserError`, printed as a single line by every entry point."""

from safer_steer.secrets import without_keys


class UserError(Exception):
    """A mistake the user can fix: says what is wrong, what was got, what is allowed and the next step, in one line.

    Credentials are struck out of it.
    """

    def __init__(self, message: str):
        super().__init__(without_keys(" ".join(str(message).split())))


class RunAborted(UserError):
    """The whole run must stop (a dead endpoint, too many failures); what is done so far is kept and resumed from."""


class ImageError(UserError):
    """A picture that cannot be used; the row that holds it is rejected with this reason."""
