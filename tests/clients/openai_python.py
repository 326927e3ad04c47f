"""openai-python against the gateway, in both URL grammars; every call is asserted."""

import os
import sys
import time

import openai
from openai import AzureOpenAI, OpenAI

BASE, KEY = os.environ["GATEWAY_URL"], os.environ["GATEWAY_KEY"]
CORE_ONLY = "CORE_ONLY" in os.environ
PROMPT = [{"role": "user", "content": "Count to ten"}]


def classic(key=KEY, **options):
    options.setdefault("max_retries", 0)
    return AzureOpenAI(azure_endpoint=BASE, api_key=key, api_version="2024-10-21", **options)


def v1(key=KEY, **options):
    options.setdefault("max_retries", 0)
    return OpenAI(base_url=f"{BASE}/openai/v1", api_key=key, **options)


def chat(client):
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=PROMPT, max_tokens=20
    )
    answer = raw.parse()
    assert answer.choices[0].message.content, answer
    assert raw.headers.get("x-spillover-backend"), dict(raw.headers)
    assert raw.headers.get("x-request-id"), dict(raw.headers)


def stream(client):
    parts, ends, usage = [], 0, None
    for chunk in client.chat.completions.create(
        model="gpt-4o",
        messages=PROMPT,
        max_tokens=60,
        stream=True,
        stream_options={"include_usage": True},
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            parts.append(choice.delta.content or "")
            ends += choice.finish_reason is not None
    assert len([part for part in parts if part]) > 1, parts
    assert ends == 1, f"{ends} ends after {parts}"
    if not CORE_ONLY:
        assert usage and usage.completion_tokens > 0, usage


def early_end(client):
    """A stream that is left after its first chunk harms nobody."""
    with client.chat.completions.create(
        model="gpt-4o", messages=PROMPT, max_tokens=200, stream=True
    ) as answer:
        next(iter(answer))
    chat(client)


def responses(client):
    answer = client.responses.create(model="gpt-4o", input="Count to ten", max_output_tokens=20)
    assert answer.output_text, answer


def streamed_response(client):
    kinds, text = [], ""
    for event in client.responses.create(
        model="gpt-4o", input="Count to ten", max_output_tokens=20, stream=True
    ):
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
    assert kinds[0] == "response.created", kinds
    assert kinds[-1] in ("response.completed", "response.incomplete"), kinds
    assert text, kinds


def embeddings(client):
    answer = client.embeddings.create(model="text-embedding-3-small", input=["one", "two"])
    assert len(answer.data) == 2 and answer.data[1].embedding, answer


def models(client):
    names = [model.id for model in client.models.list()]
    assert "gpt-4o" in names, names


def unknown_model(client):
    error = fails(openai.NotFoundError, client, "nobody-made-this")
    assert error.code == "DeploymentNotFound", error.body


def wrong_key(make):
    fails(openai.AuthenticationError, make(key="not-a-key"), "gpt-4o")


def refusal(client):
    """The second request is refused by the only backend; the hint is in both headers."""
    error = until_refused(
        lambda: client.chat.completions.create(model="tiny", messages=PROMPT, max_tokens=40)
    )
    headers = error.response.headers
    millis, seconds = int(headers["retry-after-ms"]), int(headers["retry-after"])
    assert 0 < millis <= 60_000, dict(headers)
    assert 0 <= seconds * 1000 - millis < 1000, "whole seconds are the milliseconds, rounded up"
    assert headers["x-should-retry"] in ("true", "false"), dict(headers)
    assert error.status_code == 429 and error.code, error.body


def sdk_retries(make):
    """The client's own retry waits out the hint, once, and is answered."""
    fill = {"x-emulator-prompt-tokens": "3500", "x-emulator-completion-tokens": "1"}

    def ask(client):
        create = client.chat.completions.with_raw_response.create
        return create(model="short", messages=PROMPT, max_tokens=1, extra_headers=fill)

    error = until_refused(lambda: ask(make()))
    hint = int(error.response.headers["retry-after-ms"]) / 1000
    assert 0 < hint < 3, hint
    began = time.monotonic()
    raw = ask(make(max_retries=2))
    took = time.monotonic() - began
    assert raw.retries_taken == 1, f"{raw.retries_taken} retries in {took:.2f} s, hint {hint}"
    assert hint - 0.2 < took < hint + 1.0, f"{took:.2f} s for a hint of {hint}"


def until_refused(ask):
    for _ in range(20):
        try:
            ask()
        except openai.RateLimitError as error:
            return error
    raise AssertionError("nothing was refused")


def fails(kind, client, model):
    try:
        client.chat.completions.create(model=model, messages=PROMPT, max_tokens=5)
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def main():
    print(f"openai-python {openai.__version__}")
    calls = [chat, stream]
    if not CORE_ONLY:
        calls += [early_end, responses, streamed_response, embeddings, unknown_model, refusal]
    failed = 0
    for name, make in (("AzureOpenAI", classic), ("OpenAI v1", v1)):
        whole = [] if CORE_ONLY else [wrong_key, sdk_retries]
        jobs = [(call, make()) for call in calls] + [(call, make) for call in whole]
        if make is v1 and not CORE_ONLY:
            jobs.append((models, make()))
        for call, argument in jobs:
            try:
                call(argument)
                print(f"  ok      {name}: {call.__name__}")
            except Exception as error:
                failed += 1
                print(f"  FAILED  {name}: {call.__name__}: {type(error).__name__}: {error}")
    sys.exit(failed > 0)


main()
