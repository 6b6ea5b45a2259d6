"""Calls an OpenAI-compatible chat endpoint from many threads, and retries the failures that may pass.

    busy or broken (408, 409, 425, 429, 5xx), no or a cut answer, garbage   tried again, `retries` times
    this request is refused (400, 413, 422)                                 `CallError`: the row fails, others go on
    every request would be refused (key, address, model, quota)             `EndpointError`: the run stops

Waits double from `FIRST_WAIT` to `LONGEST_WAIT` seconds, with up to a quarter of jitter on top. A `Retry-After`
(seconds or date, cut to `LONGEST_WAIT`) replaces the doubling and holds back all threads, not only the one that
received it.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from duet.errors import UserError
from duet.eval.judge.address import KEYS, endpoint

if TYPE_CHECKING:
    import httpx2

FIRST_WAIT, LONGEST_WAIT = 1.0, 120.0
AGAIN = {408, 409, 425, 429}
THIS_REQUEST = {400, 413, 422}
ADVICE = {
    401: f"set the key in {' or '.join(KEYS)}",
    403: f"the key in {' or '.join(KEYS)} may not use this model",
    404: "check --judge-url (it mostly ends in /v1) and --judge-model",
}


class CallError(Exception):
    """One request failed for good."""


class EndpointError(UserError):
    """No request to this endpoint can succeed; the message says what to change."""


class _TryAgain(Exception):
    """A failure that may pass.

    Args:
        reason: what went wrong.
        wait: seconds that the endpoint asked for; None if it did not.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Reply:
    """What the endpoint said.

    Attributes:
        text: the message; empty where the model refused.
        served: the model's name as the endpoint gives it, which shows the version.
        prompt_tokens: as billed; 0 where the endpoint does not count. So are `completion_tokens`.
    """

    text: str
    served: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatClient:
    """One endpoint; a context manager.

    Args:
        url: base address, e.g. `https://api.openai.com/v1`, or the full one up to `/chat/completions`.
        key: API key; empty for servers that need none. It goes into the header and nowhere else.
        concurrency: calls at the same time.
        retries: further attempts per call.
        timeout: seconds to wait for the connection, and for each part of the answer.

    Attributes:
        calls: answered ones; `retried`: attempts beyond the first of each.
        quiet_until: moment (monotonic clock) before which nothing is sent, on the endpoint's request.
        prompt_tokens: of the answered calls, as the endpoint counts them; so are `completion_tokens`.

    Raises:
        UserError: `url` is no http address.
    """

    def __init__(self, url: str, key: str = "", concurrency: int = 8, retries: int = 5, timeout: float = 60.0) -> None:
        import httpx2

        self.url = endpoint(url)
        self.retries, self.timeout, self.concurrency = retries, timeout, concurrency
        self.calls = self.retried = self.prompt_tokens = self.completion_tokens = 0
        self._key = key
        self._lock = threading.Lock()
        self.quiet_until = 0.0
        self._stopped = threading.Event()
        self._refused = ""
        self._http = httpx2.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=timeout,
            limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        )

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *error: object) -> None:
        self._http.close()

    def stop(self) -> None:
        """End all waits; waiting and new calls fail."""
        self._stopped.set()

    def complete(self, request: dict[str, Any]) -> Reply:
        """Send one request body.

        Raises:
            CallError: it failed, after all attempts.
            EndpointError: all others would fail too.
        """
        moment, reason = 0.0, ""
        for attempt in range(self.retries + 1):
            self._sleep_until(moment)
            if attempt:
                with self._lock:
                    self.retried += 1
            try:
                reply = self._post(request)
            except _TryAgain as trouble:
                reason = str(trouble)
                moment = self._next_attempt(attempt, trouble.wait)
                continue
            except EndpointError as error:
                # here and not in the caller, so that no other thread sends one in the meantime
                self._refused = str(error)
                self.stop()
                raise
            with self._lock:
                self.calls += 1
                self.prompt_tokens += reply.prompt_tokens
                self.completion_tokens += reply.completion_tokens
            return reply
        raise CallError(f"{reason} ({self.retries + 1} attempts)")

    def _next_attempt(self, attempt: int, asked: float | None) -> float:
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt if asked is None else asked)
        moment = time.monotonic() + wait
        if asked is not None:
            with self._lock:
                self.quiet_until = max(self.quiet_until, moment)
        return moment + wait * random.random() / 4

    def _sleep_until(self, moment: float) -> None:
        while (left := max(moment, self.quiet_until) - time.monotonic()) > 0 and not self._stopped.wait(left):
            pass
        if self._refused:
            raise EndpointError(self._refused)
        if self._stopped.is_set():
            raise CallError("not asked: the run was stopped")

    def _post(self, request: dict[str, Any]) -> Reply:
        import httpx2

        try:
            response = self._http.post(self.url, json=request)
        except httpx2.TimeoutException:
            raise _TryAgain(f"no answer within {self.timeout:g} s") from None
        except httpx2.RequestError as error:
            raise _TryAgain(f"{type(error).__name__}: {error}") from None
        if not response.is_success:
            raise self._refusal(response)
        return _reply(response)

    def _refusal(self, response: httpx2.Response) -> Exception:
        """The error for a status outside 2xx."""
        status = response.status_code
        reason = f"status {status}: {self._excerpt(response)}"
        # OpenAI's 429 for an empty account: waiting does not help
        if status == 429 and "insufficient_quota" in response.text:
            return EndpointError(f"{self.url} refuses: {reason}")
        if status in AGAIN or status >= 500:
            return _TryAgain(reason, _seconds(response.headers.get("retry-after", "")))
        if status in THIS_REQUEST:
            return CallError(reason)
        advice = ADVICE.get(status, f"it points to {response.headers['location']}" if response.has_redirect_location
                            else "is it an OpenAI-compatible endpoint?")  # fmt: skip
        return EndpointError(f"{self.url} refuses with {reason}; {advice}")

    def _excerpt(self, response: httpx2.Response) -> str:
        """The beginning of an error page, in one line, without the key."""
        text = " ".join(response.text.split())
        return (text.replace(self._key, "***") if self._key else text)[:200]


def _reply(response: httpx2.Response) -> Reply:
    try:
        content = response.json()
        text = content["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        raise _TryAgain(f"the answer is not a chat completion: {response.text[:80]!r}") from None
    if text is not None and not isinstance(text, str):
        raise _TryAgain(f"the answer's message is not text: {text!r:.80}")
    usage = content.get("usage") if isinstance(content.get("usage"), dict) else {}
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt_tokens, completion_tokens = (count if isinstance(count, int) else 0 for count in counts)
    return Reply(text or "", str(content.get("model") or ""), prompt_tokens, completion_tokens)


def _seconds(retry_after: str) -> float | None:
    """A `Retry-After` header as seconds from now; None if it cannot be read."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())
