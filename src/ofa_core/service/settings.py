"""Settings of the service: where it listens, and the limits within which it answers."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

from ..errors import OFAError

#: The environment variable with the key that callers have to know; without it nobody needs one.
KEY_VARIABLE = "OFA_API_KEY"


def key_from_environment() -> str | None:
    """The key that requests must carry, if the environment has one.

    Raises:
        OFAError: it is set, and empty or not plain ASCII, which no header can carry.
    """
    key = os.environ.get(KEY_VARIABLE)
    if key is not None and not (key.strip() == key and key.isascii() and key.isprintable() and key):
        raise OFAError(
            f"${KEY_VARIABLE} is set, but is not printable ASCII without spaces around it; unset it or mend it"
        )
    return key


@dataclass(frozen=True)
class ServiceSettings:
    """Limits of the service; the defaults suit one machine.

    Raises:
        OFAError: a number that is out of range.
    """

    #: Requests computed at once, at most.
    batch_size: int = 16
    #: Seconds for which the first request of a batch waits for others, at most.
    batch_wait: float = 0.010
    #: Requests that may be under way, those that are computed included; more are refused with 429.
    queue_size: int = 128
    #: Bytes of a request, at most; more are refused with 413.
    max_bytes: int = 20 * 1024**2
    #: Pixels of a picture, at most; more are refused with 413.
    max_pixels: int = 40_000_000
    #: Seconds in which a request must have arrived as a whole.
    read_timeout: float = 30.0
    #: Seconds in which a request is answered, or else with 504.
    timeout: float = 60.0
    #: The key that requests must carry; None where nobody needs one.
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "queue_size": 1, "max_bytes": 1, "max_pixels": 1}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise OFAError(f"{name} must be at least {number}, not {getattr(self, name)}")
        if not 0 <= self.batch_wait <= 1:
            raise OFAError(f"batch_wait must be 0 to 1 seconds, not {self.batch_wait}")
        if not (0 < self.read_timeout < math.inf and 0 < self.timeout < math.inf):
            raise OFAError(f"time-outs must be more than 0 seconds, not {self.read_timeout} and {self.timeout}")
