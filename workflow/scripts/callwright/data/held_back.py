"""Which of a user's own requests are kept back for tests: decided by the request alone, once and for all."""

import hashlib

from callwright.data.records import skeleton


def held_back(request: str, share: float) -> bool:
    """Whether a request belongs to the part of this share that is never trained.

    The same for each request whatever stands beside it, and for requests that differ only in case, punctuation, numbers
    and quoted parts: what was trained once never becomes a test, and the other way round.
    """
    digest = hashlib.sha256(skeleton(request).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
