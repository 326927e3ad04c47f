"""Serves files of the corpus raw: the first segment of a path names the file. Writes who asks what.

Each refusal gets two models: `two-NAME`, whose first backend refuses and whose second one serves,
and `one-NAME`, which has the first one alone. A file of cases tells the clients, line by line:
model, api (chat or responses), json or stream, expected status, expected wait in ms or `-`.
"""

import argparse
import json
import pathlib
import socketserver

CORPUS = pathlib.Path(__file__).parent.parent / "corpus"
LONGEST, UNKNOWN = 60_000, 1_000  # what the gateway rests at most, and without a hint


def sample(name):
    head, _, body = (CORPUS / name).read_text().partition("\n\n")
    lines = head.splitlines()
    tagged = dict(line[2:].split(": ", 1) for line in lines if line[2:].startswith(("request:", "verdict:")))
    return tagged, [line for line in lines if not line.startswith("#")], body


def raw(lines, body):
    body = body.encode()
    is_stream = any(line.startswith("content-type: text/event-stream") for line in lines)
    last = "connection: close" if is_stream else f"content-length: {len(body)}"
    return "\r\n".join([*lines, last, "", ""]).encode() + body, is_stream


def served(api, form):
    """A whole answer, with every member that strict clients want."""
    chat = {"id": "chatcmpl-1", "created": 1, "model": "gpt-4o"}
    message = {"role": "assistant", "content": "Hello", "refusal": None}
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    text = {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
    item = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [text]}
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    response = {
        "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "error": None,
        "incomplete_details": None, "instructions": None, "metadata": {}, "model": "gpt-4o",
        "output": [item], "parallel_tool_calls": True, "temperature": 1.0, "tool_choice": "auto",
        "tools": [], "top_p": 1.0,
        "usage": {"input_tokens": 9, "output_tokens": 1, "total_tokens": 10, **details},
    }
    if (api, form) == ("chat", "json"):
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return json.dumps({**chat, "object": "chat.completion", "choices": [choice], "usage": usage})
    if (api, form) == ("responses", "json"):
        return json.dumps(response)
    if api == "chat":
        deltas = [({"role": "assistant", "content": "Hel"}, None), ({"content": "lo"}, None), ({}, "stop")]
        events = [
            {**chat, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
            for delta, end in deltas
        ]
        return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    events = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_text.delta", **place, "delta": "Hello", "logprobs": []},
        {"type": "response.completed", "response": response},
    ]
    for number, event in enumerate(events):
        event["sequence_number"] = number
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)


def answer(name):
    if not name.startswith("served-"):
        _, lines, body = sample(name)
        return raw(lines, body)
    _, api, form = name.split("-")
    kind = "text/event-stream" if form == "stream" else "application/json"
    return raw(["HTTP/1.1 200 OK", f"content-type: {kind}"], served(api, form))


class Server(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self):
        while line := self.rfile.readline():
            name, headers = line.split()[1].decode().split("/")[1], {}
            while (header := self.rfile.readline().strip()):
                key, _, value = header.decode("latin-1").partition(":")
                headers[key.lower()] = value.strip()
            self.skip_body(headers)
            said, ends = answer(name)
            self.wfile.write(said)
            if ends:
                return

    def skip_body(self, headers):
        if headers.get("transfer-encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        self.rfile.read(int(headers.get("content-length", 0)))


def cases():
    """Name, api, form, verdict of every file that a client can ask for."""
    for path in sorted(CORPUS.glob("*.http")):
        tagged, lines, _ = sample(path.name)
        method, target = tagged["request"].split()
        asked = target.split("?")[0]
        status = int(tagged["verdict"].split()[0])
        if method != "POST" or status < 400 or not asked.endswith(("/completions", "/responses")):
            continue
        api = "responses" if asked.endswith("/responses") else "chat"
        form = "stream" if raw(lines, "")[1] else "json"
        yield path.name, api, form, tagged["verdict"].split()


def wait_of(verdict, lines):
    _, reason, *wait = verdict
    head = "\n".join(lines)
    if "x-ms-spillover-from-" in head and "x-ms-spillover-error" not in head:
        return UNKNOWN  # The wait is that of the deployment to which Azure spilled.
    if reason == "quota":
        return LONGEST
    # A refusal of a day is told as one.
    return UNKNOWN if wait == ["none"] else int(wait[0])


def models(port):
    told, config = [], []
    for name, api, form, verdict in cases():
        refuses = verdict[0] in ("429", "529")
        # What is wrong with a backend moves on too; what is wrong with a request is the caller's.
        moves = refuses or "misconfigured" in verdict or (verdict[0] in ("401", "402", "403", "410") and verdict[1] == "passes")
        backends = {"one": [name], "two": [name, f"served-{api}-{form}"]} if moves else {"one": [name]}
        for prefix, files in backends.items():
            model = f"{prefix}-{name.removesuffix('.http')}"
            # Refusals are the subject, not how long they are waited out.
            config.append(f'[models."{model}"]\nmax_wait = "0s"\n')
            for priority, file in enumerate(files, 1):
                config.append(
                    f'[[models."{model}".standard]]\nname = "{prefix}{priority}"\n'
                    f'endpoint = "http://127.0.0.1:{port}/{file}"\nkey = "env:BACKEND_KEY"\npriority = {priority}\n'
                )
            status = verdict[0] if prefix == "one" else "200"
            if status == "401":
                status = "502"  # it is about the gateway's own key
            wait = wait_of(verdict, sample(name)[1]) if prefix == "one" and refuses else "-"
            told.append(f"{model}\t{api}\t{form}\t{status}\t{wait}\n")
    return "".join(told), "".join(config)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", required=True, help="where the cases go")
    parser.add_argument("--models", required=True, help="where the gateway's models go")
    options = parser.parse_args()
    socketserver.ThreadingTCPServer.daemon_threads = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Server) as server:
        told, config = models(server.server_address[1])
        pathlib.Path(options.cases).write_text(told)
        pathlib.Path(options.models).write_text(config)
        print("listening", flush=True)
        server.serve_forever()


main()
