"""What the Hub's client complains about, in one sentence that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HTTPError, RepositoryNotFoundError


@contextmanager
def plainly(name: str) -> Iterator[None]:
    """Raises `OSError` with such a sentence instead of the client's errors about the repository `name`."""
    try:
        yield
    except (HTTPError, RuntimeError) as error:
        # what fails in one of the threads that upload arrives as the cause of a RuntimeError
        cause = error.__cause__ if isinstance(error, RuntimeError) else error
        if not isinstance(cause, HTTPError):
            raise
        raise OSError(f"{name}: {_explained(cause)}") from error


def _explained(error: HTTPError) -> str:
    if isinstance(error, GatedRepoError):
        return "gated: ask for access on its page of the Hub, then log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return (
            "no such repository on the Hub, or a private one: log in with `hf auth login`, set HF_TOKEN or pass a token"
        )
    if not isinstance(error, HfHubHTTPError):
        return f"the connection failed ({type(error).__name__}: {error}); the same command goes on"
    status = error.response.status_code
    reasons = {
        401: "not logged in, or the token is not valid; log in with `hf auth login` or set HF_TOKEN",
        403: "this token may not write there",
        409: "the Hub reports a conflict; run the same command again",
        412: "somebody else committed meanwhile; run the same command again to see what would change now",
    }
    reason = reasons.get(status, "the Hub does not answer as it should; the same command goes on later")
    return f"{reason} (HTTP {status}: {error.server_message or 'no message'})"
