"""Whether the service in this container answers: exits 0 or 1. Nothing is sent that would need a trusted certificate.

healthcheck.py PORT PATH; MICROSFL_PORT and MICROSFL_TLS_CERT say otherwise what the service listens on, and how.
"""

import http.client
import os
import ssl
import sys

TIMEOUT_S = 4.0


def connection(port: int) -> http.client.HTTPConnection:
    cert = os.environ.get("MICROSFL_TLS_CERT")
    if not cert:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(cert, os.environ.get("MICROSFL_TLS_KEY"))  # where it wants one of its callers
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_S, context=context)


def answers(port: int, path: str) -> bool:
    asked = connection(port)
    try:
        asked.request("GET", path)
        return asked.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asked.close()


if __name__ == "__main__":
    sys.exit(0 if answers(int(os.environ.get("MICROSFL_PORT") or sys.argv[1]), sys.argv[2]) else 1)
