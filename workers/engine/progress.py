"""What the engine tells of a request after each step."""

from dataclasses import dataclass, field, replace

from workers.engine.metrics import RequestUsage
from workers.engine.prompt_readings import PromptReading
from workers.engine.sequence import FinishReason
from workers.model.sampler import TokenLogprobs


@dataclass(slots=True)
class Progress:
    """What one step gave one request; `usage` comes with the finish reason, at the end. The counts
    are of the request so far."""

    request_id: str
    text: str
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    usage: RequestUsage | None = None
    failure: Exception | None = None
    reading: PromptReading | None = None
    output_tokens: int = 0
    cached_tokens: int = 0

    def followed_by(self, later: "Progress") -> "Progress":
        """Both as one."""
        return replace(
            later,
            text=self.text + later.text,
            logprobs=self.logprobs + later.logprobs,
            reading=self.reading or later.reading,
        )
