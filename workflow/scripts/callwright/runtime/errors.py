"""The one exception that a user is meant to read, and one line of any other."""

import errno

# What the system answers when a disk, or a user's share of it, is full.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class CallwrightError(Exception):
    """Something the user can mend: a file, a setting, a missing permission, a full disk.

    The message is one sentence or two that name the file, record or config key, what was
    found, what was expected and what to do. Scripts and the command line print it without
    a traceback and exit with status 1.
    """


def one_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind; at most 300 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
