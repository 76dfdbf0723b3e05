"""Is the model hub there? Asked once, in at most five seconds.

The hub's client tries five times for each of a model's files, which cost 46 seconds on a machine
without a network before it said so. Where the hub cannot be reached, what its cache holds is used,
and what it does not hold is one line at once.
"""
import functools
import os
import socket
import threading
from urllib.parse import urlparse

PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@functools.cache
def look(seconds=5):
    """Before the first question to the hub: if it cannot be reached, its client stays with its
    cache."""
    # a proxy knows hosts that this machine does not
    if os.environ.get("HF_HUB_OFFLINE") or any(map(os.environ.get, PROXIES)):
        return
    from huggingface_hub import constants
    address = urlparse(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    if answers(address.hostname, port, seconds):
        return
    print(f"{address.hostname} cannot be reached, so only what its cache holds is used", flush=True)
    constants.HF_HUB_OFFLINE = True


def answers(host, port, seconds):
    """Can a connection be made in so many seconds? Looking up a name knows no time-out."""
    found = []

    def connect():
        try:
            socket.create_connection((host, port), seconds).close()
            found.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(found)
