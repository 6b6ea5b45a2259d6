"""The body of `/v1/chat/completions`, read strictly: what this server does not support is refused by name, never
ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from duet.serve.errors import ApiError, refuse
from duet.serve.limits import Limits

#: OpenAI's parameters that this server does not support -> values that change nothing; null always does.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none",),
    "parallel_tool_calls": (),
    "functions": ([],),
    "function_call": ("none",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "metadata": ({},),
}
#: Identifies the user; ignored.
IDENTIFIERS = ("user", "safety_identifier")
#: Fields of an answer's message that clients send back with it, empty.
ANSWERED = frozenset({"refusal", "annotations", "audio", "function_call", "tool_calls"})
#: Values of a body beside its text's characters. Parsed, a value takes some thirty times its bytes.
VALUES = 16_384
#: Characters of a client's own names in messages.
SHOWN = 100
#: Without a seed, and at temperature 0, an answer is greedy.
GREEDY = 0.0


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Text(_Strict):
    """A piece of text."""

    type: Literal["text"]
    text: str


class Address(_Strict):
    """Location of a picture or video: a data URL, or a URL of an allowed domain."""

    url: str
    detail: Literal["auto", "high"] | None = None


class Image(_Strict):
    """A picture."""

    type: Literal["image_url"]
    image_url: Address


class Video(_Strict):
    """A video, in vLLM's format; OpenAI has none."""

    type: Literal["video_url"]
    video_url: Address


def _parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


#: What is wrong, where pydantic's words are about our classes.
WORDS = {
    "union_tag_not_found": "type is required",
    "union_tag_invalid": "type should be 'text', 'image_url' or 'video_url'",
    "missing": "is required",
    "model_type": "should be an object",
    "model_attributes_type": "should be an object",
    "dict_type": "should be an object",
}
Part = Annotated[Text | Image | Video, Field(discriminator="type")]


class Message(_Strict):
    """A message of the conversation; `developer` is OpenAI's newer word for `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[Part], BeforeValidator(_parts), Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _without_empty_fields(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("role") != "assistant":
            return value
        return {name: entry for name, entry in value.items() if name not in ANSWERED or entry not in (None, [])}


class StreamOptions(_Strict):
    """How an answer is streamed."""

    include_usage: bool | None = None


class Choice(_Strict):
    """`extra_body={"duet": {...}}`."""

    budget: str | None = None


def _strings(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Body(_Strict):
    """The supported parameters."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=256)]], BeforeValidator(_strings), Field(max_length=4)
        ]
        | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    duet: Choice | None = None


@dataclass(frozen=True)
class Sampling:
    """How the tokens of an answer are chosen.

    Attributes:
        temperature: 0 is greedy.
        top_p: share of the probability to sample from.
        seed: of the answer's random numbers; None: random.
        max_tokens: where the answer is cut off.
        stop: strings that end it, not included.
    """

    temperature: float = GREEDY
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int = 64
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChatRequest:
    """A request, checked.

    Attributes:
        model: as given by the client.
        messages: of the conversation.
        sampling: how to answer.
        stream: in chunks; `include_usage`: with the usage in the last one.
        budget: by name; None: the default.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    stream: bool
    include_usage: bool
    budget: str | None


def read_request(body: bytes, limits: Limits) -> ChatRequest:
    """Parse and check a body.

    Raises:
        ApiError: it is not a JSON object, uses an unsupported parameter, or exceeds a limit.
    """
    values = _read_json(body, limits)
    given = {name: value for name, value in values.items() if value is not None and not _idle(name, value)}
    for name in given:
        if name not in Body.model_fields:
            known = "this server does not support this" if name in NEUTRAL else "no such parameter"
            raise refuse(f"{name[:SHOWN]}: {known}; leave it out", name[:SHOWN], "unsupported_parameter")
    try:
        parsed = Body.model_validate(given)
    except ValidationError as error:
        _explain(error)
    _check_size(parsed, limits)
    if parsed.stream_options is not None and not parsed.stream:
        raise refuse("stream_options: has no effect without stream", "stream_options")
    return ChatRequest(
        model=parsed.model,
        messages=tuple(parsed.messages),
        sampling=_sampling(parsed, limits),
        stream=bool(parsed.stream),
        include_usage=bool(parsed.stream_options and parsed.stream_options.include_usage),
        budget=parsed.duet.budget if parsed.duet else None,
    )


def _read_json(body: bytes, limits: Limits) -> dict[str, Any]:
    def no_number(name: str) -> NoReturn:
        raise ValueError(name)

    if sum(map(body.count, (b",", b"[", b"{"))) > VALUES + limits.text:
        raise refuse("the body has too many values", code="invalid_json")
    try:
        values = json.loads(body.decode("utf-8-sig"), parse_constant=no_number)
        if b"\\u" in body:  # half of a surrogate pair is no text
            json.dumps(values, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise refuse("the body is not JSON", code="invalid_json") from None
    if not isinstance(values, dict):
        raise refuse("the body is not a JSON object", code="invalid_json")
    return values


def _idle(name: str, value: Any) -> bool:
    """Whether the value of an unsupported parameter changes nothing."""
    if name in IDENTIFIERS:
        return isinstance(value, str)
    return any(type(value) is type(neutral) and value == neutral for neutral in NEUTRAL.get(name, ()))


def _explain(error: ValidationError) -> NoReturn:
    """The first mistake, named as the client wrote it; without the value, which may be a picture."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where, place = "", list(first["loc"])
    for number, step in enumerate(place):
        if isinstance(step, int):
            where += f"[{step}]"
        # the kind of part follows its number
        elif not (number > 1 and isinstance(place[number - 1], int) and place[number - 2] == "content"):
            where += f".{step}" if where else step
    where, kind = where[:SHOWN], first["type"]
    if kind == "extra_forbidden":
        raise refuse(f"{where}: no such parameter; leave it out", where, "unsupported_parameter")
    message = WORDS.get(kind) or first["msg"].replace("Input should be", "should be")
    if kind == "list_type" and where.endswith(".content"):
        message = "should be a string or a list of parts"
    raise refuse(f"{where}: {message}", where)


def _check_size(body: Body, limits: Limits) -> None:
    if len(body.messages) > limits.messages:
        raise refuse(f"messages: {len(body.messages)} of them; the limit is {limits.messages}", "messages")
    parts = [part for message in body.messages for part in message.content]
    characters = sum(len(part.text) for part in parts if isinstance(part, Text))
    if characters > limits.text:
        raise refuse(f"messages: {characters} characters of text; the limit is {limits.text}", "messages")
    media = sum(not isinstance(part, Text) for part in parts)
    if media > limits.media:
        raise refuse(f"messages: {media} pictures and videos; the limit is {limits.media}", "messages")


def _sampling(body: Body, limits: Limits) -> Sampling:
    asked = {
        name: value for name in ("max_completion_tokens", "max_tokens") if (value := getattr(body, name)) is not None
    }
    if len(set(asked.values())) > 1:
        raise refuse("max_tokens: contradicts max_completion_tokens; give one of them", "max_tokens")
    for name, value in asked.items():
        if value > limits.new_tokens:
            raise refuse(f"{name}: {value}; the limit is {limits.new_tokens}", name)
    # OpenAI's default temperature of 1, if top_p is given alone
    default = GREEDY if body.top_p is None else 1.0
    return Sampling(
        temperature=default if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=body.seed,
        max_tokens=next(iter(asked.values()), limits.new_tokens),
        stop=tuple(body.stop or ()),
    )


def unknown_model(name: str) -> ApiError:
    """404, as OpenAI answers for an unknown model."""
    return ApiError(
        404, f"there is no model {name[:100]!r} here; see /v1/models", param="model", code="model_not_found"
    )
