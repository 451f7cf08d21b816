"""Errors of the Hub's client → one sentence that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HTTPError, RepositoryNotFoundError


@contextmanager
def plainly(name: str) -> Iterator[None]:
    """A context that turns the client's errors about the repository `name` into an OSError that says what to do."""
    try:
        yield
    except (HTTPError, RuntimeError) as error:
        # The client uploads in threads; an error there arrives as the cause of a RuntimeError.
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
        return f"the connection failed ({type(error).__name__}: {error}); run the same command again to continue"
    status = error.response.status_code
    reasons = {
        401: "not logged in, or the token is not valid; log in with `hf auth login` or set HF_TOKEN",
        403: "this token may not write there",
        409: "the Hub reports a conflict; run the same command again",
        412: "somebody else committed meanwhile; run the same command again to see what would change now",
    }
    reason = reasons.get(status, "the Hub answered with an error; run the same command again later to continue")
    return f"{reason} (HTTP {status}: {error.server_message or 'no message'})"
