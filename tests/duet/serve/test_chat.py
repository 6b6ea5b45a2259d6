"""Answers over a real port, asked by the official client."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.duet.serve.server import NAME, Running, alone, asked, data_url, message, running

LONG = "Describe the image."


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as server:
        yield server


def create(server: Running, messages: list, **options):
    return server.client().chat.completions.create(model=NAME, messages=messages, **options)


@pytest.mark.parametrize("budget", ["mini_third", "mini_ninth", "none"])
def test_an_answer_is_that_of_duet_ask(server: Running, budget: str) -> None:
    for number in range(4):
        picture, question = asked(number)
        answer = create(server, [message(question.text, picture)], extra_body={"duet": {"budget": budget}})
        assert answer.choices[0].message.content == alone(question.text, picture, budget=budget)
        assert answer.choices[0].finish_reason == "stop"
        assert answer.choices[0].message.role == "assistant" and answer.object == "chat.completion"


def test_usage_tells_visual_tokens_in_and_kept(server: Running) -> None:
    picture, question = asked(0)
    used = {}
    for budget in ("mini_third", "none"):
        answer = create(server, [message(question.text, picture)], extra_body={"duet": {"budget": budget}})
        used[budget] = answer.usage
    assert used["none"].duet == {
        "method": "none",
        "budget": "none",
        "visual_tokens": 100,
        "kept": [100],
        "boundaries": [0],
        "average": 100.0,
    }
    assert used["mini_third"].duet["method"] == "duet" and used["mini_third"].duet["visual_tokens"] == 100
    assert used["mini_third"].duet["kept"] == [53, 26, 0] and used["mini_third"].duet["boundaries"] == [0, 4, 6]
    assert used["mini_third"].duet["average"] == 33.0
    assert used["mini_third"].prompt_tokens == used["none"].prompt_tokens > 100
    assert used["none"].total_tokens == used["none"].prompt_tokens + used["none"].completion_tokens
    assert used["none"].completion_tokens == 2


def test_two_pictures(server: Running) -> None:
    (first, question), (second, _) = asked(0), asked(3)
    answer = create(server, [message(question.text, first, second)])
    assert answer.choices[0].message.content == alone(question.text, first, second)
    assert answer.usage.duet["visual_tokens"] == 200 and answer.usage.duet["kept"][0] == 106


def test_text_alone_and_before_a_picture(server: Running) -> None:
    picture, question = asked(0)
    parts = message(question.text, picture)["content"]
    behind = create(server, [{"role": "user", "content": parts[::-1]}])
    assert behind.choices[0].message.content == alone(question.text, picture)
    text = create(server, [{"role": "user", "content": question.text}])
    assert text.choices[0].message.content == alone(question.text)
    assert text.usage.duet["visual_tokens"] == 0 and text.usage.duet["average"] == 0


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_formats(server: Running, form: str) -> None:
    picture, question = asked(1)
    part = {"type": "image_url", "image_url": {"url": data_url(picture, form), "detail": "high"}}
    answer = create(server, [{"role": "user", "content": [part, {"type": "text", "text": question.text}]}])
    assert answer.usage.duet["visual_tokens"] == 100


def test_turns_and_system_message(server: Running) -> None:
    picture, question = asked(0)
    first = message(question.text, picture)
    turns = [first, {"role": "assistant", "content": "red"}, {"role": "user", "content": "Is there a ring?"}]
    one = create(server, turns)
    other = create(server, [{"role": "system", "content": "Answer."}, *turns])
    assert one.usage.prompt_tokens > create(server, [first]).usage.prompt_tokens
    assert other.usage.prompt_tokens != one.usage.prompt_tokens


def test_an_answer_is_cut_off(server: Running) -> None:
    picture, _ = asked(0)
    whole = create(server, [message(LONG, picture)]).choices[0].message.content
    for name in ("max_tokens", "max_completion_tokens"):
        answer = create(server, [message(LONG, picture)], **{name: 2})
        assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 2
        assert whole.startswith(answer.choices[0].message.content) and answer.choices[0].message.content != whole


def test_stop(server: Running) -> None:
    picture, _ = asked(0)
    whole = create(server, [message(LONG, picture)]).choices[0].message.content
    word = whole.split()[2]
    for stop in (word, ["never said", word]):
        answer = create(server, [message(LONG, picture)], stop=stop)
        assert answer.choices[0].message.content == whole[: whole.index(word)].rstrip()
        assert answer.choices[0].finish_reason == "stop"


def test_seed(server: Running) -> None:
    picture, _ = asked(0)

    def sampled(**options) -> str:
        answer = create(server, [message(LONG, picture)], temperature=2, max_tokens=12, **options)
        return answer.choices[0].message.content

    assert sampled(seed=7) == sampled(seed=7)
    assert len({sampled(seed=seed) for seed in range(6)}) > 1
    assert len({sampled() for _ in range(6)}) > 1
    greedy = create(server, [message(LONG, picture)], max_tokens=12).choices[0].message.content
    assert sampled(seed=7, top_p=1e-6) == greedy


def test_rows_of_different_settings_share_a_batch(server: Running) -> None:
    """What a request gets does not depend on its company."""
    requests = [
        {"messages": [message(LONG if number % 2 else asked(number)[1].text, asked(number)[0])], **options}
        for number, options in enumerate(
            [
                {},
                {"temperature": 1.5, "seed": 3, "max_tokens": 9},
                {"max_tokens": 1},
                {"stop": ["a"]},
                {"temperature": 0.7, "top_p": 0.9, "seed": 5},
                {"messages": [{"role": "user", "content": "Is there a ring?"}]},
            ]
        )
    ]

    def answer(request: dict) -> tuple[str, str]:
        choice = create(server, **request).choices[0]
        return choice.message.content, choice.finish_reason

    single = [answer(request) for request in requests]
    server.service.queue.batching = type(server.service.queue.batching)(rows=8, window=0.5)
    before = server.service.metrics.batch._sum.get(), sum(b.get() for b in server.service.metrics.batch._buckets)
    with ThreadPoolExecutor(len(requests)) as pool:
        together = list(pool.map(answer, requests))
    after = server.service.metrics.batch._sum.get(), sum(b.get() for b in server.service.metrics.batch._buckets)
    assert together == single
    assert (
        after[0] - before[0] == len(requests) and after[1] - before[1] <= 2
    )  # those with pictures, and the one without


def test_models_health_and_metrics(server: Running) -> None:
    client = server.client()
    (model,) = client.models.list().data
    assert model.id == NAME and model.duet["default"] == "mini_third"
    assert model.duet["budgets"] == {"mini_third": "duet", "mini_ninth": "duet", "none": "none"}
    assert client.models.retrieve(NAME).id == NAME
    assert server.get("/health", key=None) == (200, '{"status":"ok"}')
    create(server, [message("Is it dark?", asked(0)[0])])
    status, text = server.get("/metrics")
    assert status == 200
    numbers = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(numbers['duet_requests_total{status="200"}']) >= 1
    assert float(numbers["duet_visual_tokens_total"]) >= 100
    for name in ("duet_batch_size", "duet_time_to_first_token_seconds", "duet_queue_seconds", "duet_request_seconds"):
        assert float(numbers[f"{name}_count"]) >= 1
    assert float(numbers['duet_kept_visual_tokens_count{budget="mini_third"}']) >= 1
    assert float(numbers["duet_completion_tokens_total"]) >= 1
    assert {"duet_queue_length", "duet_running", "duet_tokens_per_second_count"} <= set(numbers)
