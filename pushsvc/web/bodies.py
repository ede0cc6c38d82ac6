"""What the bodies of all requests of a worker may take together."""

from pushsvc.errors import Overloaded


class Bodies:
    """The bytes of all bodies that are being read, or whose request is not answered yet.

    Args:
        most: of them.
    """

    def __init__(self, most: int) -> None:
        self._left = self._most = most

    def take(self, size: int) -> None:
        """Account for some that have come.

        Raises:
            Overloaded: these are too many.
        """
        if size > self._left:
            raise Overloaded(
                f"the bodies of all requests have over {self._most} bytes: retry", retry_after=2.0
            )
        self._left -= size

    def give(self, size: int) -> None:
        """Account for some that are needed no more."""
        self._left += size
