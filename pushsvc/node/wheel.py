"""A timer wheel of one-second slots for things that mostly get postponed.

Each member carries the slot it is due in. Being due later moves nothing: the member is looked at in
its old slot and put into a new one then. So a message on a connection costs no timer operation.
"""

import math
from collections.abc import Iterator


class Wheel:
    """Slots of descriptors, by the second in which they are due."""

    def __init__(self, now: float) -> None:
        self._slots: dict[int, list[int]] = {}
        self._turned = math.floor(now)

    def put(self, fd: int, wake: int, due: float) -> int:
        """See that a descriptor is looked at by ``due``.

        Args:
            fd: the descriptor.
            wake: the slot that it carries, 0 for none.
            due: seconds on the wheel's clock.

        Returns:
            The slot that it carries from now on.
        """
        slot = max(math.ceil(due), self._turned + 1)
        if 0 < wake <= slot:
            return wake
        members = self._slots.get(slot)
        if members is None:
            self._slots[slot] = [fd]
        else:
            members.append(fd)
        return slot

    def turn(self, now: float) -> Iterator[tuple[int, int]]:
        """The descriptors that are due, each with its slot.

        One that carries another slot by now, or was closed, is a leftover to be ignored.
        """
        last = math.floor(now)
        for slot in range(self._turned + 1, last + 1):
            self._turned = slot
            for fd in self._slots.pop(slot, ()):
                yield fd, slot
