"""What the runner says when it cannot go on."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class BuildError(RuntimeError):
    """The build cannot go on. The message says all that is to be said."""

    status = 1


class UsageError(BuildError):
    """What was asked for does not exist or is not allowed. The message is one line."""

    status = 2


@contextmanager
def explained() -> Iterator[None]:
    """Ends the process without a traceback when all is said: a `BuildError`, or Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.status) from None
