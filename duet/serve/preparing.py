"""The body of a request -> a job: parse, fetch, decode, process. Runs in threads, outside the event loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from duet.serve.errors import refuse
from duet.serve.media import Pixels, open_image, read_data_url
from duet.serve.schema import ChatRequest, Image, Text, Video, read_request, unknown_model
from duet.serve.video import open_video

if TYPE_CHECKING:
    from duet.serve.fetch import Fetcher
    from duet.serve.jobs import Encoded
    from duet.serve.limits import Limits
    from duet.serve.model import Served


class File(NamedTuple):
    """A picture or video as received, and its place in the request."""

    is_video: bool
    where: str
    content: bytes


class Preparing:
    """Prepares a body for the queue.

    Args:
        served: the model.
        name: for clients.
        limits: of the server.
        fetcher: of URLs; None if no domain is allowed.
    """

    def __init__(self, served: Served, name: str, limits: Limits, fetcher: Fetcher | None = None) -> None:
        self.served, self.name, self.limits, self.fetcher = served, name, limits, fetcher

    def parse(self, body: bytes) -> tuple[ChatRequest, str]:
        """Check everything that needs no picture, and write the prompt.

        Raises:
            ApiError: see `read_request` and `Prompts.write`; or the model or budget is not served.
        """
        request = read_request(body, self.limits)
        if request.model != self.name:
            raise unknown_model(request.model)
        if request.budget is not None and request.budget not in self.served.settings:
            names = ", ".join(self.served.settings)
            raise refuse(f"duet.budget: not served here; choose one of {names}", "duet.budget", "unknown_budget")
        return request, self.served.prompts.write(request.messages)

    def encode(self, request: ChatRequest, prompt: str, files: Sequence[File]) -> Encoded:
        """Files -> pictures and frames -> tensors.

        Raises:
            ApiError: a picture or video is refused, or the prompt is too long with it.
        """
        media = self._open(files)
        budget = request.budget or self.served.default
        return self.served.encode(prompt, media, budget, request.sampling.max_tokens)

    def read(self, request: ChatRequest) -> list[File]:
        """The files of a request; may wait for other hosts.

        Raises:
            ApiError: one is not available.
        """
        found = []
        for at, message in enumerate(request.messages):
            for number, part in enumerate(message.content):
                if isinstance(part, Text):
                    continue
                where = f"messages[{at}].content[{number}]"
                url = part.image_url.url if isinstance(part, Image) else part.video_url.url
                found.append(File(isinstance(part, Video), where, self._bytes(url, where)))
        return found

    def _bytes(self, url: str, where: str) -> bytes:
        content = read_data_url(url, self.limits, where)
        if content is not None:
            return content
        if self.fetcher is None:
            raise refuse(f"{where}: this server takes data URLs only (data:image/png;base64,...)", where, "no_fetching")
        return self.fetcher.fetch(url, where)

    def _open(self, files: Sequence[File]) -> list[Any]:
        pixels, frames = Pixels(self.limits), self.served.asking.frames
        return [
            open_video(content, frames, pixels, self.limits, where) if is_video else open_image(content, pixels, where)
            for is_video, where, content in files
        ]
