"""How many bytes of bodies and whole answers one process holds at a time, over all requests.

No tenant can take all of it: its share is a half, so that who promises large bodies and sends them
slowly keeps out nobody else.
"""

from collections import defaultdict

from gateway.errors import Unavailable

SHARE = 2  # a tenant's part of the whole


class Budget:
    """A counter with a ceiling. Who takes bytes gives them back when its request is over."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._of_tenant: dict[int, int] = defaultdict(int)
        self.taken = 0

    def take(self, size: int, *, tenant: int | None = None) -> None:
        """Unavailable where this would pass a ceiling; then nothing was taken."""
        if self.taken + size > self._bytes_max:
            raise _full("This process holds")
        if tenant is not None:
            if self._of_tenant.get(tenant, 0) + size > self._bytes_max // SHARE:
                raise _full("Your requests make this process hold")
            self._of_tenant[tenant] += size
        self.taken += size

    def give_back(self, size: int, *, tenant: int | None = None) -> None:
        self.taken -= size
        assert self.taken >= 0
        if tenant is not None and size:
            self._of_tenant[tenant] -= size
            if not self._of_tenant[tenant]:
                del self._of_tenant[tenant]


def _full(who: str) -> Unavailable:
    return Unavailable(
        f"{who} as many bytes as it may. Try again shortly.", code="out_of_memory_budget"
    )
