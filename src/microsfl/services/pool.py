"""Requests of a service to others: urllib3's connections, with what the process trusts and shows."""

from __future__ import annotations

import ssl
import threading
from typing import Any

import urllib3

from ..errors import UnsafeConnection
from ..trust.diagnosis import unsafe
from ..trust.tls import Outbound


class Pool:
    """For any number of threads. Nothing is tried again and no redirect is followed."""

    def __init__(self, outbound: Outbound, timeout: urllib3.Timeout, connections: int = 1) -> None:
        self._outbound, self._timeout, self._connections = outbound, timeout, connections
        self._context: ssl.SSLContext | None = None
        self._pool = self._new(None)
        self._lock = threading.Lock()

    def request(self, method: str, url: str, **given: Any) -> urllib3.BaseHTTPResponse:
        """See `urllib3.PoolManager.request`.

        Raises:
            urllib3.exceptions.HTTPError: when there is no answer.
            UnsafeConnection: when the server's certificate is not trusted, or ours not by it, or it is plain HTTP to
                another machine.
            InvalidSetting: when a file with certificates is wrong.
        """
        try:
            return self._fresh(url).request(method, url, **given, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            if (why := unsafe(url, error, self._outbound)) is not None:
                raise UnsafeConnection(why) from None
            raise

    def _fresh(self, url: str) -> urllib3.PoolManager:
        context = self._outbound.context_for(url)
        with self._lock:
            if context is not None and context is not self._context:
                self._context, self._pool = context, self._new(context)
            return self._pool

    def _new(self, context: ssl.SSLContext | None) -> urllib3.PoolManager:
        return urllib3.PoolManager(timeout=self._timeout, retries=False, maxsize=self._connections, ssl_context=context)
