"""The dashboard's address as a terminal shows it: once opened, it logs a browser in.

It is for a person's eyes. It goes to no file and no pipe, as whoever reads those could use it first.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..errors import MicrosflError
from .control import Control

GOOD_FOR_S = 9 * 60.0  # a minute less than the coordinator has it


class LoginLink:
    """Made when it is first asked for, and again before it is over."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._made_at: float | None = None
        self._address = ""

    def of(self, control: Control) -> str:
        """The address; without a login where none is needed, or whoever asks may give none."""
        now = self._clock()
        if self._made_at is None or now - self._made_at > GOOD_FOR_S:
            self._made_at = now
            try:
                self._address = control.login_link()
            except MicrosflError:
                self._address = control.url
        return self._address
