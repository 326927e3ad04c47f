"""TLS with OpenSSL at the other end, by Python's `ssl`: clients of the gateway, and backends of it.

  openssl.py SPILLOVER FOLDER

The tests of the gateway have rustls at both ends; what two ends of one library agree on proves little.
"""

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings

SPILLOVER, FOLDER = sys.argv[1:]
KEY, BACKEND_KEY = "a-client-of-the-openssl-test", "a-backend-of-the-openssl-test"
BODY = b'{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}'
ANSWER = b'{"choices": []}'

# Old versions are asked for on purpose.
warnings.simplefilter("ignore", DeprecationWarning)


# --------------------------------------------------------------------- certificates


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], cwd=FOLDER, check=True, capture_output=True)


def authority(name):
    openssl(*"req -x509 -newkey rsa:2048 -nodes -days 2 -keyout".split(), f"{name}.key", "-out", f"{name}.pem",
            "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign")


def certificate(name, issuer, extension, days="2"):
    """A key and a certificate of `issuer`; with `days` below 0 it has expired."""
    with open(path(f"{name}.ext"), "w") as file:
        file.write(extension)
    openssl(*"req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout".split(), f"{name}.key",
            "-out", f"{name}.csr", "-subj", f"/CN={name}")
    openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key",
            "-CAcreateserial", "-days", days, "-extfile", f"{name}.ext", "-out", f"{name}.pem")


def path(name):
    return os.path.join(FOLDER, name)


def make_certificates():
    authority("trusted")
    authority("unknown")
    server, client = "extendedKeyUsage=serverAuth\nsubjectAltName=", "extendedKeyUsage=clientAuth\n"
    certificate("server", "trusted", server + "IP:127.0.0.1,DNS:localhost")
    certificate("other-name", "trusted", server + "DNS:elsewhere.example")
    certificate("expired", "trusted", server + "IP:127.0.0.1", days="-1")
    certificate("stranger", "unknown", server + "IP:127.0.0.1")
    certificate("team", "trusted", client)
    certificate("old-team", "trusted", client, days="-1")
    certificate("false-team", "unknown", client)


# ------------------------------------------------------------------------- backends


class Backend:
    """A server whose TLS is OpenSSL's. `after` gets each request that it could read, and the connection."""

    def __init__(self, after, name="server", change=lambda context: None, handshake=True):
        self.after, self.handshake = after, handshake
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(path(f"{name}.pem"), path(f"{name}.key"))
        change(self.context)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self.listener.getsockname()[1]}"
        self.requests, self.connections, self.versions = [], 0, set()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            self.connections += 1
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        if not self.handshake:
            return time.sleep(60)
        with contextlib.suppress(OSError), connection:
            stream = self.context.wrap_socket(connection, server_side=True)
            self.versions.add(stream.version())
            while request := read_request(stream):
                self.requests.append(request)
                self.after(stream)


def read_request(stream):
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := stream.recv(65536)):
            return None
        data += more
    head, body = data.split(b"\r\n\r\n", 1)
    length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += stream.recv(65536)
    return head.decode()


def answers(stream):
    stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER)


def cuts(head):
    """Half of an answer, and then the end of the connection without TLS's own end."""

    def after(stream):
        stream.sendall(head + ANSWER[:7])
        # Not `unwrap`, which would say that the answer ends here.
        os.close(stream.detach())

    return after


# -------------------------------------------------------------------------- gateway


class Gateway:
    def __init__(self, *backends, tls="", clients="", wait="0s"):
        models = "".join(
            f'[[models.m.standard]]\nname = "b{number}"\nendpoint = "{backend.url}"\nkey = "env:BACKEND_KEY"\npriority = {number}\n'
            for number, backend in enumerate(backends, 1)
        )
        with open(path("gateway.toml"), "w") as file:
            file.write(f"""
[listen]
address = "127.0.0.1:0"
{tls}
[upstream]
trust = "trusted.pem"
connect_timeout = "700ms"
[clients.team]
keys = ["env:CLIENT_KEY"]
{clients}
[models.m]
max_wait = "{wait}"
{models}""")
        environment = dict(os.environ, BACKEND_KEY=BACKEND_KEY, CLIENT_KEY=KEY)
        self.process = subprocess.Popen(
            [SPILLOVER, "serve", "--config", path("gateway.toml")], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=open(path("gateway.err"), "a"))
        line = next(line for line in self.process.stdout if line.startswith("listening on"))
        self.port = int(line.split()[2].rsplit(":", 1)[1].split("/")[0])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def ask(self, context=None, key=KEY):
        """Status and body of an answer; an error where it does not end as its head says."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            stream = context.wrap_socket(connection, server_hostname="localhost") if context else connection
            stream.sendall(request_text(key))
            return read_answer(stream)


def request_text(key=KEY):
    credential = f"api-key: {key}\r\n" if key else ""
    head = (f"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{credential}connection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n")
    return head.encode() + BODY


def read_answer(stream):
    data = b""
    while more := stream.recv(65536):
        data += more
    if not data.startswith(b"HTTP/"):
        raise ConnectionError("no answer")
    head, body = data.split(b"\r\n\r\n", 1)
    fields = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:])
    if fields.get("transfer-encoding") == "chunked" and not body.endswith(b"0\r\n\r\n"):
        raise ConnectionError("the chunks do not end")
    if len(body) < int(fields.get("content-length", 0)):
        raise ConnectionError("the answer is cut")
    return int(head.split()[1]), body


def fails(call):
    try:
        call()
    except (OSError, ssl.SSLError):
        return True
    return False


def client_context(certificate=None, minimum=None, maximum=None, protocols=None):
    context = ssl.create_default_context(cafile=path("trusted.pem"))
    if maximum and maximum < ssl.TLSVersion.TLSv1_2:
        context.set_ciphers("ALL:@SECLEVEL=0")
    if certificate:
        context.load_cert_chain(path(f"{certificate}.pem"), path(f"{certificate}.key"))
    if minimum:
        context.minimum_version = minimum
    if maximum:
        context.maximum_version = maximum
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


# ---------------------------------------------------------------------------- tests

V10, V11, V12, V13 = (getattr(ssl.TLSVersion, f"TLSv1{v}") for v in ("", "_1", "_2", "_3"))
TLS = 'tls = { certificates = "server.pem", key = "file:server.key"%s }'


def clients_of_both_versions_are_served():
    with Gateway(Backend(answers), tls=TLS % "") as gateway:
        for version in (V12, V13):
            context = client_context(minimum=version, maximum=version)
            assert gateway.ask(context) == (200, ANSWER), version


def older_versions_are_refused():
    with Gateway(Backend(answers), tls=TLS % "") as gateway:
        for version in (V10, V11):
            assert fails(lambda: gateway.ask(client_context(minimum=version, maximum=version))), version
        assert gateway.ask(client_context())[0] == 200


def the_protocol_is_agreed_on():
    with Gateway(Backend(answers), tls=TLS % "") as gateway:
        for offered, agreed in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), (None, None)):
            with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
                stream = client_context(protocols=offered).wrap_socket(connection, server_hostname="localhost")
                assert stream.selected_alpn_protocol() == agreed, offered


def plain_text_gets_no_answer_from_a_tls_listener():
    with Gateway(Backend(answers), tls=TLS % "") as gateway:
        assert fails(gateway.ask)


def a_session_that_is_resumed_is_served():
    with Gateway(Backend(answers), tls=TLS % "") as gateway:
        context, session, reused = client_context(maximum=V12), None, []
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
                stream = context.wrap_socket(connection, server_hostname="localhost", session=session)
                session = stream.session
                reused.append(stream.session_reused)
                stream.sendall(request_text())
                assert read_answer(stream) == (200, ANSWER)
        assert reused == [False, True], reused


def certificates_of_clients_are_held_against_their_authority():
    more = ', client_ca = "trusted.pem", client_required = true'
    with Gateway(Backend(answers), tls=TLS % more, clients='certificates = ["CN=team"]') as gateway:
        for version in (V12, V13):
            ask = lambda name: gateway.ask(client_context(name, maximum=version), key=None)
            assert ask("team") == (200, ANSWER), version
            for name in ("false-team", "old-team", None, "server"):
                assert fails(lambda: ask(name)), (name, version)


def backends_of_both_versions_serve():
    for version in (V12, V13):
        def only(context):
            context.minimum_version = context.maximum_version = version

        backend = Backend(answers, change=only)
        with Gateway(backend) as gateway:
            assert gateway.ask() == (200, ANSWER), version
        assert backend.versions == {version.name.replace("_", ".")}, backend.versions
        assert BACKEND_KEY in backend.requests[0]


def old(context):
    context.minimum_version = V10
    context.maximum_version = V11
    context.set_ciphers("ALL:@SECLEVEL=0")


def wants_a_certificate(context):
    context.load_verify_locations(path("unknown.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    # In 1.3 the refusal comes after the client's handshake has ended.
    context.maximum_version = V12


def a_backend_that_is_not_who_it_should_be_gets_nothing_and_the_next_one_serves():
    for what in (dict(name="other-name"), dict(name="expired"), dict(name="stranger"), dict(change=old),
                 dict(change=wants_a_certificate)):
        wrong, right = Backend(answers, **what), Backend(answers)
        with Gateway(wrong, right) as gateway:
            assert gateway.ask() == (200, ANSWER), what
        assert wrong.connections and not wrong.requests, what
        with Gateway(wrong) as gateway:
            assert gateway.ask()[0] == 502, what
        assert not wrong.requests, what


def a_handshake_that_hangs_fails_over():
    silent, right = Backend(answers, handshake=False), Backend(answers)
    with Gateway(silent, right) as gateway:
        began = time.monotonic()
        assert gateway.ask() == (200, ANSWER)
        assert 0.5 < time.monotonic() - began < 5


def an_answer_that_is_cut_does_not_pass_for_a_whole_one():
    length = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"
    chunks = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\n"
    to_the_end = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
    for head in (length, chunks, to_the_end):
        with Gateway(Backend(cuts(head))) as gateway:
            try:
                status, _ = gateway.ask()
            except ConnectionError:
                continue
            assert status == 502, head


def main():
    make_certificates()
    print(f"   {ssl.OPENSSL_VERSION}")
    for test in TESTS:
        test()
        print(f"   {test.__name__.replace('_', ' ')}")


TESTS = (
    clients_of_both_versions_are_served,
    older_versions_are_refused,
    the_protocol_is_agreed_on,
    plain_text_gets_no_answer_from_a_tls_listener,
    a_session_that_is_resumed_is_served,
    certificates_of_clients_are_held_against_their_authority,
    backends_of_both_versions_serve,
    a_backend_that_is_not_who_it_should_be_gets_nothing_and_the_next_one_serves,
    a_handshake_that_hangs_fails_over,
    an_answer_that_is_cut_does_not_pass_for_a_whole_one,
)

main()
