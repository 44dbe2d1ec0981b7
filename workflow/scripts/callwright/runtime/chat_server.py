"""Servers that speak OpenAI's chat completions: one way to open a client, to ask, and to say what went wrong."""

import os
import re
from typing import TYPE_CHECKING, Any

from callwright.runtime.errors import CallwrightError, one_line

if TYPE_CHECKING:
    import openai

KEY_VARIABLE = "OPENAI_API_KEY"
NO_KEY = "none"  # the client wants a key; servers without keys do not look at it
REFUSALS = (400, 413, 422)  # statuses about what is asked, where the same server may well take something else


class RefusedRequest(CallwrightError):
    """A server does not take what it is asked; `said` are its own words."""

    def __init__(self, message: str, said: str):
        super().__init__(message)
        self.said = said


def open_client(
    url: str, timeout: float, retries: int = 2, key: str | None = None, key_variable: str = KEY_VARIABLE
) -> "openai.OpenAI":
    """OpenAI's client for the server at `url` (`http://127.0.0.1:8080/v1`).

    timeout: seconds for one answer. retries: how often a request is sent once more that got no answer, or one that
    says "later". key: None reads the environment variable `key_variable`, without the blanks around it that a file of
    secrets may leave. Raises CallwrightError for a `url` that is no address.
    """
    import openai

    expected = "expected one like http://127.0.0.1:8080/v1"
    if not re.match(r"https?://[^/\s]", url):  # the client would say this at its first request, as a lost connection
        raise CallwrightError(f"{url!r} is no address of a server: {expected}")
    key = (os.environ.get(key_variable) or "").strip() if key is None else key
    try:
        return openai.OpenAI(base_url=url, api_key=key or NO_KEY, timeout=timeout, max_retries=retries)
    except Exception as error:  # of whichever library the client speaks HTTP with
        raise CallwrightError(f"{url!r} is no address of a server ({one_line(error)}): {expected}") from error


class ChatServer:
    """A server that is asked one conversation at a time.

    who: how messages call it. kept: how they end, such as what becomes of the answers so far. All methods raise
    CallwrightError, in one line, where the server cannot be reached, refuses the key, or sends something else than
    an answer.
    """

    def __init__(
        self,
        url: str,
        timeout: float,
        retries: int = 2,
        key_variable: str = KEY_VARIABLE,
        who: str = "",
        kept: str = "",
    ):
        self.client = open_client(url, timeout, retries, key_variable=key_variable)
        self.who, self.kept, self.key_variable = who or f"the server {url}", kept, key_variable

    def first_model(self) -> str:
        """The name of the first model that the server lists."""
        import openai

        try:
            found = next(iter(self.client.models.list()), None)
        except (openai.OpenAIError, ValueError, AttributeError) as error:  # the last of the client, for a page of HTML
            raise CallwrightError(self._told(error)) from error
        if found is None:
            raise CallwrightError(f"{self.who} lists no model: name one with --model")
        if not isinstance(getattr(found, "id", None), str):
            raise CallwrightError(f"{self.who} lists a model without a name: name one with --model")
        return found.id

    def complete(self, model: str, **request: Any) -> Any:
        """The chat completion for `request`, whose first choice has a message. Raises RefusedRequest too."""
        import openai

        try:
            found = self.client.chat.completions.create(model=model, **request)
        except (openai.OpenAIError, ValueError) as error:
            told = self._told(error, model)
            if getattr(error, "status_code", None) in REFUSALS:
                raise RefusedRequest(told, one_line(error)) from error
            raise CallwrightError(told) from error
        choice = next(iter(getattr(found, "choices", None) or []), None)
        if getattr(choice, "message", None) is None:
            raise CallwrightError(
                f"{self.who} sent something else than an answer: does its address end in /v1?{self.kept}"
            )
        return found

    def _told(self, error: Exception, model: str | None = None) -> str:
        return f"{self.who} {complaint(error, model, self.key_variable)}{self.kept}"


def complaint(error: Exception, model: str | None = None, key_variable: str = KEY_VARIABLE) -> str:
    """What a server does, as an error of its client says: what follows its name in a message."""
    import openai

    said = one_line(error)
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return f"refuses the key in {key_variable} ({said})"
    if isinstance(error, openai.NotFoundError):
        what = "is no such server" if model is None else f"knows no model {model!r}, or is no such server"
        return f"{what} ({said})"
    if isinstance(error, openai.APIStatusError):
        return f"{'refuses the request' if error.status_code in REFUSALS else 'gives no answer'} ({said})"
    if isinstance(error, openai.APITimeoutError):
        return f"gives no answer in time ({said})"
    if isinstance(error, openai.APIConnectionError):
        return f"does not answer ({said}): is it running, and is this its address?"
    return f"sent something else than an answer ({said}): does its address end in /v1?"
