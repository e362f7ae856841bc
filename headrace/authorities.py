"""Whose word counts for it that a server is who it says it is, over TLS?"""

import os
import ssl

import httpx

from headrace.failure import bad_input


def named(url: str) -> str | None:
    """The file or folder of certificates that the environment names, if this URL is asked over TLS."""
    if not url.startswith("https:"):
        return None
    return os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")


def authorities(url: str) -> ssl.SSLContext | bool:
    """The same for httpx, read, also where it must not heed the environment's proxies; True: the usual ones.

    Raises Failure.
    """
    if (place := named(url)) is None:
        return True
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise bad_input(f"SSL_CERT_FILE or SSL_CERT_DIR: there are no certificates in {place}: {error}") from None
