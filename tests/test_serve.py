"""`diptych serve` as a process of its own: signals, a network without a route, what schemathesis makes up."""

import concurrent.futures
import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis import GenerationMode, checks

from chromium import until
from diptych.cli.serve import _names
from serving import COLOURS, Server, data_url, picture_file, running, tiny_bundle

ROOT = Path(__file__).parent.parent
RED = data_url(picture_file())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_bundle().save(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "deeper").mkdir()
    for place in ("red.png", "green.png", "deeper/blue.png"):
        (folder / place).write_bytes(picture_file(COLOURS[Path(place).stem]))  # pyright: ignore[reportArgumentType]
    return folder


@pytest.fixture(scope="module")
def server(model: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    index = tmp_path_factory.mktemp("index") / "index"
    with running("--model", model, "--library", pictures, "--index", index, "--max-body", "4") as server:
        until(lambda: not httpx2.get(f"{server.url}/health").json()["indexing"])
        yield server


def test_a_stop_answers_the_requests_in_hand(model: Path):
    # Requests wait a second for company, so that the signal comes while they are in hand.
    with running("--model", model, "--batch-delay", "1000") as server, concurrent.futures.ThreadPoolExecutor() as pool:
        ask = lambda: httpx2.post(f"{server.url}/v1/embeddings", json={"input": "a red kite"}, timeout=60)  # noqa: E731
        asked = [pool.submit(ask) for _ in range(4)]
        metrics = ""
        while 'diptych_waiting{kind="text"} 4.0' not in metrics:
            metrics = httpx2.get(f"{server.url}/metrics").text
        code, errors = server.stop()
        assert [future.result().status_code for future in asked] == [200] * 4
        assert (code, errors) == (0, "")
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{server.url}/health")


def test_ctrl_c_ends_it_like_every_command(model: Path):
    with running("--model", model) as server:
        assert httpx2.get(f"{server.url}/health").status_code == 200
        assert server.stop(signal.SIGINT) == (130, "diptych: stopped.\n")


def test_a_gigabyte_on_the_wire_is_refused_and_memory_stays(server: Server):
    httpx2.get(f"{server.url}/health")
    before = memory(server)
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1024):
            sent += 1
            yield bytes(2**20)

    headers = {"content-type": "application/json"}
    with contextlib.suppress(httpx2.WriteError):  # the server hung up before all was sent
        answer = httpx2.post(f"{server.url}/classify", content=chunks(), headers=headers, timeout=60)
        assert answer.status_code == 413
    assert sent < 100
    assert httpx2.post(f"{server.url}/v1/embeddings", json={"input": "a"}).status_code == 200
    assert memory(server) - before < 50 * 2**20


def memory(server: Server) -> int:
    """Bytes of the server that are in memory."""
    text = httpx2.get(f"{server.url}/metrics").text
    found = re.search(r"^process_resident_memory_bytes (\S+)", text, re.MULTILINE)
    assert found
    return int(float(found[1]))


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_commands_of_the_how_to_are_answered(server: Server):
    text = (ROOT / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")
    commands = re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(commands) == 5
    for command in commands:
        command = command.replace("localhost:8000", server.url).replace("curl ", "curl --silent --fail-with-body ")
        done = subprocess.run(
            ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout
        assert "error" not in json.loads(done.stdout)


def test_the_python_of_the_how_to_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    exec(compile(code, "serve.md", "exec"), {})
    assert capsys.readouterr().out.startswith("{'a red apple': 0.9")


def test_bad_options_are_one_line(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any):
    from diptych.cli.main import main

    short = tmp_path / "key"
    short.write_text("short\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        cases = [
            (["--port", port], "cannot be listened at: Address already in use. Choose another --port or --host."),
            (["--api-key-file", str(short)], "must be at least 8 ASCII characters without spaces"),
            (["--api-key-file", str(tmp_path / "none")], "must be a text file with the API key"),
            (["--allow-url", "http://example.org/"], "--allow-url takes a host"),
            (["--allow-host", "https://me.org/", "--model", "nothing"], "a host must be a name or an"),
            (
                ["--allow-host", "me.org:8000", "--model", "nothing"],
                "without port or path. Got 'me.org",
            ),
            (
                ["--library", str(tmp_path / "none"), "--model", str(model), "--port", "0"],
                "must be a folder of pictures",
            ),
            (["--model", "nothing", "--port", "0"], "nothing is not a model"),
        ]
        for options, message in cases:
            assert main(["serve", *options]) == 2
            out, errors = capfd.readouterr()
            assert message in errors
            assert (out, errors.count("\n")) == ("", 1)
        monkeypatch.setenv("DIPTYCH_API_KEY", "short")
        assert main(["serve"]) == 2
        assert "the API key in DIPTYCH_API_KEY must be" in capfd.readouterr().err


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, capfd: Any):
    from diptych.cli.main import main

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve"]) == 2
    assert capfd.readouterr().err == "diptych: serving needs an extra: pip install 'diptych[serve]'.\n"


def test_an_address_that_others_reach_wants_a_key_or_a_word_that_it_needs_none(
    model: Path, capfd: Any, monkeypatch: Any
):
    from diptych.cli.main import main

    monkeypatch.delenv("DIPTYCH_API_KEY", raising=False)
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        assert main(["serve", "--host", host, "--model", str(model)]) == 2
        errors = capfd.readouterr().err
        assert f"--host {host} lets others reach the server, and no API key is asked for" in errors
        assert "Set DIPTYCH_API_KEY or --api-key-file, or say --no-key." in errors


def statuses(server: Server, path: str, *hosts: str) -> list[int]:
    """What a request is answered that calls the server by these names."""
    return [httpx2.get(f"{server.url}{path}", headers={"host": host}).status_code for host in hosts]


def test_hosts_stay_checked_where_it_listens_everywhere(model: Path):
    options = ["--model", model, "--host", "0.0.0.0", "--no-key"]
    with running(*options, "--allow-host", "photos.example.org") as server:
        good = ("localhost:80", "127.0.0.1", "192.168.1.5:8000", socket.gethostname(), "photos.example.org")
        assert statuses(server, "/v1/models", *good) == [200] * 5
        assert statuses(server, "/v1/models", "evil.org", "127.0.0.1.evil.org") == [421] * 2
    with running(*options, "--allow-host", "*") as server:
        assert statuses(server, "/v1/models", "evil.org") == [200]


def test_names_are_compared_as_browsers_send_them():
    assert _names("::0", ["Bücher.example.", "[2001:DB8::0:1]"]) == [
        *("localhost", "127.0.0.1", "::1", "::", socket.gethostname().lower()),
        *("xn--bcher-kva.example", "2001:db8::1"),
    ]
    assert _names("fe80::1%lo", [])[-1] == "fe80::1"
    assert _names("0.0.0.0", ["*"]) is None


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_it_listens_at_addresses_of_both_kinds(model: Path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with running("--model", model, "--host", "::", DIPTYCH_API_KEY="a-long-enough-key") as server:
        port = server.url.rpartition(":")[2]
        for address in ("127.0.0.1", "[::1]", "localhost"):
            assert httpx2.get(f"http://{address}:{port}/health").status_code == 200
        assert statuses(server, "/health", "evil.org") == [421]
    with running("--model", model, "--host", "::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert httpx2.get(f"{server.url}/health").status_code == 200


def test_while_it_indexes_all_else_answers(model: Path, pictures: Path, tmp_path: Path):
    gate = tmp_path / "gate"
    first = f"""
import pathlib, time
from diptych.search.library import Library
update = Library.update
def wait(library, **options):
    while not pathlib.Path({str(gate)!r}).exists():
        time.sleep(0.02)
    return update(library, **options)
Library.update = wait
"""
    options = ["--model", model, "--library", pictures, "--index", tmp_path / "index"]
    with running(*options, first=first) as server:
        health = httpx2.get(f"{server.url}/health").json()
        assert (health["status"], health["library"], health["indexing"]) == ("ok", 0, True)
        assert httpx2.post(f"{server.url}/v1/embeddings", json={"input": "a"}).status_code == 200
        assert httpx2.post(f"{server.url}/search", json={"text": "a"}).json()["results"] == []
        gate.touch()
        until(lambda: not httpx2.get(f"{server.url}/health").json()["indexing"])
        until(lambda: httpx2.get(f"{server.url}/health").json()["library"] == 3)
        assert len(httpx2.post(f"{server.url}/search", json={"text": "a"}).json()["results"]) == 3
        assert server.stop() == (0, "")


# Every reading of a found file hangs, as on a share that is gone; and the times are a test's.
HANGS = """
import threading
from diptych.cli import serve
from diptych.search.library import Library
from diptych.serve import limits, service
Library.thumbnail = lambda *_, **__: threading.Event().wait()
limits.Limits.__init__.__kwdefaults__["work_seconds"] = 0.5
serve._GRACE, serve._LAST, service._LAST = 1, 2, 0.5
"""


def test_files_that_hang_neither_stop_the_others_nor_the_end(model: Path, pictures: Path, tmp_path: Path):
    options = ["--model", model, "--library", pictures, "--index", tmp_path / "index"]
    with running(*options, first=HANGS) as server, concurrent.futures.ThreadPoolExecutor() as pool:
        until(lambda: httpx2.get(f"{server.url}/health").json()["library"] == 3)
        found = httpx2.post(f"{server.url}/search", json={"text": "a"}).json()["results"]
        paths = [one["thumbnail"] for one in found] * 2  # three times would stop two threads for ever
        asked = [pool.submit(httpx2.get, server.url + path, timeout=60) for path in paths]
        assert httpx2.post(f"{server.url}/v1/embeddings", json={"input": ["a", {"image": RED}]}).status_code == 200
        assert {future.result().status_code for future in asked} == {503}
        assert httpx2.get(server.url + paths[0]).json()["error"]["code"] == "stuck"
        assert httpx2.post(f"{server.url}/search", json={"text": "a"}).status_code == 200
        assert server.stop()[0] == 0


def test_a_file_that_hangs_while_it_is_indexed_does_not_keep_the_process(model: Path, pictures: Path, tmp_path: Path):
    first = (
        HANGS
        + """
from diptych.search import update
update.read_file = lambda *_, **__: threading.Event().wait()
"""
    )
    with running("--model", model, "--library", pictures, "--index", tmp_path / "index", first=first) as server:
        assert httpx2.get(f"{server.url}/health").json()["indexing"]
        code, errors = server.stop()
        assert (code, errors) == (0, "diptych: stopped, though not all work in hand did end.\n")


def test_a_pipe_among_the_pictures_is_not_waited_for(model: Path, tmp_path: Path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in COLOURS:
        (folder / f"{name}.png").write_bytes(picture_file(COLOURS[name]))  # pyright: ignore[reportArgumentType]
    with running("--model", model, "--library", folder, "--index", tmp_path / "index") as server:
        until(lambda: httpx2.get(f"{server.url}/health").json()["library"] == 3)
        found = httpx2.post(f"{server.url}/search", json={"text": "a"}).json()["results"]
        for name in COLOURS:
            (folder / f"{name}.png").unlink()
            os.mkfifo(folder / f"{name}.png")
        for one in found:
            assert httpx2.get(server.url + one["thumbnail"]).status_code == 404
        assert server.stop() == (0, "")


# Runs in a process whose every connection is written down, in a network that has a loopback and no route.
WATCHED = """
import json, sys, threading, urllib.request
seen = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        seen.append([event, str(arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0])])
sys.addaudithook(watch)
import uvicorn
serve = uvicorn.Server.run
def run(server, sockets=None):
    url = "http://127.0.0.1:%d" % sockets[0].getsockname()[1]
    def ask():
        bodies = json.loads(sys.argv[1])
        for path, body in bodies:
            request = urllib.request.Request(url + path, body and json.dumps(body).encode(),
                                             {"Content-Type": "application/json"})
            print(path, urllib.request.urlopen(request, timeout=60).status, flush=True)
        server.should_exit = True
    threading.Thread(target=ask).start()
    serve(server, sockets=sockets)
uvicorn.Server.run = run
from diptych.cli.main import main
code = main(["serve", "--port", "0", *sys.argv[2:]])
print("code", code)
print("seen", json.dumps([one for one in seen if "127.0.0.1" not in one[1]]))
"""


@pytest.mark.skipif(shutil.which("unshare") is None or shutil.which("ip") is None, reason="needs unshare and ip")
def test_nothing_is_sent_to_anyone_in_a_network_without_a_route(model: Path, pictures: Path, tmp_path: Path):
    alone = ["unshare", "--net", *(["--map-root-user"] if os.getuid() else [])]
    command = [*alone, "ip", "link", "set", "lo", "up"]
    probe = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if probe.returncode:
        pytest.skip(f"a network namespace is not permitted here: {probe.stderr.strip()}")
    requests: list[tuple[str, Any]] = [
        ("/health", None),
        ("/", None),
        ("/metrics", None),
        ("/v1/embeddings", {"input": ["a red kite", {"image": RED}]}),
        ("/classify", {"image": RED, "labels": ["a kite", "a boat"]}),
        ("/search", {"text": "a red kite"}),
    ]
    options = ["--model", str(model), "--library", str(pictures), "--index", str(tmp_path / "index")]
    words = [sys.executable, "-c", WATCHED, json.dumps(requests), *options]
    script = 'ip link set lo up && test -z "$(ip route)" && exec "$@"'
    done = subprocess.run(
        [*alone, "sh", "-c", script, "sh", *words], capture_output=True, text=True, check=False, timeout=120
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("/")] == [f"{path} 200" for path, _ in requests], done.stderr
    assert lines[-2:] == ["code 0", "seen []"]
    assert done.stderr == ""


checks.load_all_checks()
# Not positive_data_acceptance: a text that fits the description is mostly no picture.
CHECKS = checks.CHECKS.get_by_names(
    [
        *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"),
        *("response_headers_conformance", "negative_data_rejection", "unsupported_method", "missing_required_header"),
    ]
)


def make_up(server: Server, examples: int) -> list[str]:
    """Send what fits the description, and what does not; the operations that were tried."""
    tried: list[str] = []
    for found in schemathesis.openapi.from_url(f"{server.url}/openapi.json").get_all_operations():
        operation = found.ok()
        fits = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        modes = [fits, operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)] if operation.body else [fits]
        for strategy in modes:

            @given(case=strategy)
            @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
            def try_it(case: Any) -> None:
                case.call_and_validate(checks=CHECKS)

            try_it()
        tried.append(operation.label)
    return tried


def test_what_is_made_up_from_the_description_is_answered_as_described(server: Server):
    assert len(make_up(server, examples=10)) == 26


@pytest.mark.slow
def test_much_that_is_made_up_from_the_description_is_answered_as_described(server: Server):
    assert len(make_up(server, examples=500)) == 26


def tiff_of_odd_tags() -> bytes:
    """Of which libtiff and Pillow have things to say."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "TIFF", compression="tiff_lzw", tiffinfo={65000: "x", 700: b"y"})
    return file.getvalue()[:-1]


def test_what_libraries_say_of_strangers_files_is_not_said_to_who_runs_the_server(model: Path):
    palette = io.BytesIO()
    Image.new("P", (8, 8)).save(palette, "PNG", transparency=bytes(256))
    damaged = picture_file(kind="JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0" + b"\xff" * 6)
    with running("--model", model) as server:
        for file in (tiff_of_odd_tags(), palette.getvalue(), damaged, b"II*\0" + b"\xff" * 60, picture_file()[:60]):
            body = {"input": {"image": data_url(file)}}
            assert httpx2.post(f"{server.url}/v1/embeddings", json=body, timeout=60).status_code in (200, 400)
        assert server.stop() == (0, "")
