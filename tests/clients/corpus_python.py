"""openai-python against a gateway whose backends replay the corpus; every case is asserted."""

import os
import sys

import openai
from openai import AzureOpenAI, OpenAI

BASE, KEY = os.environ["GATEWAY_URL"], os.environ["GATEWAY_KEY"]
PROMPT = [{"role": "user", "content": "Say hello"}]
OPTIONS = {"api_key": KEY, "max_retries": 0, "timeout": 20}
chats = AzureOpenAI(azure_endpoint=BASE, api_version="2024-10-21", **OPTIONS)
responses = OpenAI(base_url=f"{BASE}/openai/v1", **OPTIONS)
KINDS = {
    400: openai.BadRequestError,
    402: openai.APIStatusError,  # there is no class of its own
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    410: openai.APIStatusError,
    413: openai.APIStatusError,
    429: openai.RateLimitError,
    502: openai.InternalServerError,
    503: openai.InternalServerError,
}


def ask(model, api, streams):
    if api == "chat":
        answer = chats.chat.completions.create(model=model, messages=PROMPT, stream=streams)
        if not streams:
            return answer.choices[0].message.content
        return "".join(choice.delta.content or "" for chunk in answer for choice in chunk.choices)
    answer = responses.responses.create(model=model, input="Say hello", stream=streams)
    if not streams:
        return answer.output_text
    text, kinds = "", []
    for event in answer:
        kinds.append(event.type)
        text += event.delta if event.type == "response.output_text.delta" else ""
    assert kinds.count("response.created") == 1 and kinds[-1] == "response.completed", kinds
    return text


def check(model, api, form, status, wait):
    try:
        text = ask(model, api, form == "stream")
    except openai.APIStatusError as error:
        assert type(error) is KINDS[int(status)], f"{type(error).__name__} instead of {status}: {error}"
        if wait != "-":
            told = error.response.headers
            millis, seconds = int(told["retry-after-ms"]), int(told["retry-after"])
            assert int(wait) - 500 <= millis <= int(wait), f"{millis} ms instead of {wait}"
            assert seconds == -(-millis // 1000), dict(told)
    else:
        assert status == "200", f"an answer instead of {status}"
        assert text == "Hello", text


def main():
    failed = 0
    cases = [line.rstrip("\n").split("\t") for line in open(os.environ["CASES"])]
    for case in cases:
        try:
            check(*case)
        except Exception as error:
            failed += 1
            print(f"  FAILED  {case[0]}: {type(error).__name__}: {error}")
    print(f"openai-python {openai.__version__}: {len(cases) - failed} of {len(cases)} cases")
    sys.exit(failed > 0 or len(cases) < 60)


main()
