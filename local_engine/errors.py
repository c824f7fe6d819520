"""What can go wrong in the engine.

EngineError                       status  code
├ CheckpointError                 -       checkpoint_error           the files cannot be served
├ InvalidRequest                  400     invalid_value              param names the field
│ ├ Unsupported                   400     unsupported                valid, but not built here
│ └ ContextLengthExceeded         400     context_length_exceeded
├ UnknownModel                    404     model_not_found
├ UnknownAdapter                  404     adapter_not_found
├ EngineBusy                      429     engine_overloaded          retry_after_s
├ EngineStopped                   503     engine_stopping
├ EngineUnavailable               503     engine_unavailable         the process is down
├ DeadlineExceeded                504     deadline_exceeded          it took longer than asked
└ GenerationFailed                500     generation_failed          this request broke
  ├ EngineOutOfMemory             503     engine_out_of_memory
  └ FormNotFollowed               400     form_not_followed          its form was too much work
"""

from __future__ import annotations

from pathlib import Path


class EngineError(Exception):
    """Stand at the root of the engine's errors, with the HTTP face of each."""

    status = 500
    code = "engine_error"
    type = "server_error"


class CheckpointError(EngineError):
    """Say which file of a checkpoint cannot be served, and what to change."""

    code = "checkpoint_error"

    def __init__(self, where: Path | str, problem: str) -> None:
        self.where = str(where)
        super().__init__(f"{where}: {problem}")


class InvalidRequest(EngineError):
    """Say which field of a request is wrong."""

    status = 400
    code = "invalid_value"
    type = "invalid_request_error"

    def __init__(self, message: str, param: str | None = None) -> None:
        self.param = param
        super().__init__(message)


class Unsupported(InvalidRequest):
    """Refuse something valid that this engine does not do."""

    code = "unsupported"


class ContextLengthExceeded(InvalidRequest):
    """Refuse a prompt that leaves no room for an answer."""

    code = "context_length_exceeded"

    def __init__(self, prompt_tokens: int, context: int) -> None:
        super().__init__(
            f"This model's context is {context} tokens, and the prompt alone has "
            f"{prompt_tokens}. Shorten the messages.",
            "messages",
        )


class UnknownModel(EngineError):
    """Refuse a model that this engine does not serve."""

    status = 404
    code = "model_not_found"
    type = "invalid_request_error"

    def __init__(self, asked: str, served: str) -> None:
        super().__init__(f"The model '{asked}' is not served here; this engine serves '{served}'.")


class UnknownAdapter(EngineError):
    """Tell that there is no adapter of a name, loaded or to be loaded."""

    status = 404
    code = "adapter_not_found"
    type = "invalid_request_error"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no adapter {name[:80]!r} here.")


class EngineBusy(EngineError):
    """Refuse work while the waiting line is full."""

    status = 429
    code = "engine_overloaded"
    type = "rate_limit_error"

    def __init__(self, waiting: int, retry_after_s: int = 1) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"{waiting} requests already wait for this engine. Try again later.")


class EngineStopped(EngineError):
    """Refuse work because the engine stops."""

    status = 503
    code = "engine_stopping"


class EngineUnavailable(EngineError):
    """Tell that the engine process is down, loading, or restarting."""

    status = 503
    code = "engine_unavailable"


class GenerationFailed(EngineError):
    """Tell that one running request broke, with the cause chained."""

    code = "generation_failed"


# From torch's allocator, and from the system where it maps a file.
_OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "Cannot allocate memory")


def is_out_of_memory(cause: BaseException) -> bool:
    """Tell whether memory ran out; torch has a type for it on a GPU, and words on a CPU."""
    is_typed = isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError"
    return is_typed or any(words in str(cause) for words in _OUT_OF_MEMORY)


class EngineOutOfMemory(GenerationFailed):
    """Tell that a step did not fit this machine's memory, and took its requests with it."""

    status = 503
    code = "engine_out_of_memory"

    def __init__(self) -> None:
        super().__init__(
            "The engine ran out of memory on this step. Lower its batch, chunk or cache size."
        )


class FormNotFollowed(GenerationFailed):
    """Tell that the form asked for took more work than allowed, or left nothing to say.

    The client's to change: it speaks neither against this engine nor against its model.
    """

    status = 400
    code = "form_not_followed"
    type = "invalid_request_error"


class DeadlineExceeded(EngineError):
    """Tell that a request was not done by its deadline; its work has been cancelled."""

    status = 504
    code = "deadline_exceeded"

    def __init__(self) -> None:
        super().__init__("The request was not done by its deadline.")
