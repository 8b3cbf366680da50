"""How many bytes of bodies and whole answers one process holds at a time, over all requests."""

from gateway.errors import Unavailable


class Budget:
    """A counter with a ceiling. Who takes bytes gives them back when its request is over."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.taken = 0

    def take(self, size: int) -> None:
        """Unavailable where this would pass the ceiling; then nothing was taken."""
        if self.taken + size > self._bytes_max:
            raise Unavailable(
                "This process holds as many bytes as it may. Try again shortly.",
                code="out_of_memory_budget",
            )
        self.taken += size

    def give_back(self, size: int) -> None:
        self.taken -= size
        assert self.taken >= 0
