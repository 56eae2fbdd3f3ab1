"""Not more than WeCom shows: what goes beyond its limits for one person is dropped, and the call says that all is well.

An application's messages to one person: 30 a minute and 1000 an hour (developer.work.weixin.qq.com/document/path/90236,
frequency limits); those in groups: 200 a minute and 10,000 a day for each member (.../90248); a robot's: 20 a minute
(.../91770), which it says when it is reached. Counted here for each address, since this process began: what another
process sent for the same application is not known.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable

from parley.errors import RateLimited

TO_A_PERSON = ((30, 60.0), (1000, 3600.0))
TO_A_GROUP = ((200, 60.0), (10_000, 86_400.0))
OF_A_ROBOT = ((20, 60.0),)
_ADDRESSES = 10_000


class Pace:
    """Counts what was sent; `take` says when there is no room."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sent: OrderedDict[str, deque[float]] = OrderedDict()

    def take(self, address: str, limits: tuple[tuple[int, float], ...], count: int = 1) -> None:
        """Count so many messages to this address. Raises `RateLimited` when WeCom would drop one of them."""
        now, sent = self._clock(), self._sent.setdefault(address, deque())
        self._sent.move_to_end(address)
        if len(self._sent) > _ADDRESSES:
            self._sent.popitem(last=False)
        while sent and sent[0] <= now - limits[-1][1]:
            sent.popleft()
        for most, seconds in limits:
            # The last one that has to be out of this window before all of them fit into it.
            before = len(sent) + min(count, most) - most - 1
            if before >= 0 and (free := sent[before] + seconds - now) > 0:
                raise RateLimited(
                    f"WeCom shows one place {most} messages in {seconds:.0f} s and drops the next.", free
                )
        sent.extend([now] * count)
