import dataclasses
import errno
import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants as hub_constants
import huggingface_hub.file_download as hub_download
import pytest

from diptych.errors import ConfigError, DiptychError, WeightsError
from diptych.weights.hub import fetch
from diptych.weights.published import published_models

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "org/model"
WEIGHTS = bytes(range(256)) * 40
CLIP_CONFIG = json.dumps({"model_type": "clip"}).encode()
TIMM_CONFIG = json.dumps({"architecture": "vit_base_patch32_clip_224"}).encode()
TOKENIZER_FILES = {"tokenizer.json": b"{}", "vocab.json": b'{"a": 0}', "merges.txt": b"#version\n"}
TRANSFORMERS = {
    "config.json": CLIP_CONFIG,
    "preprocessor_config.json": b'{"size": 224}',
    **TOKENIZER_FILES,
    "model.safetensors": WEIGHTS,
}
OPEN_CLIP = {
    "open_clip_config.json": b'{"model_cfg": {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}}}',
    **TOKENIZER_FILES,
    "open_clip_model.safetensors": WEIGHTS,
    "open_clip_pytorch_model.bin": b"a pickle",
}
NEVER = {
    "flax_model.msgpack": b"x",
    "tf_model.h5": b"x",
    "onnx/model.onnx": b"x",
    "training_args.bin": b"x",
    "a.pt": b"x",
}


class FakeHub(ThreadingHTTPServer):
    """One repository, served as the hub does."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = dict(TRANSFORMERS)
        self.refusal: tuple[int, str] | None = None  # status and X-Error-Code of each answer
        self.breaks = 0  # so many downloads of weights end in the middle
        self.requests: list[str] = []  # METHOD FILE, or METHOD info
        self.ranges: list[str] = []

    def handle_error(self, request, client_address) -> None:
        """Clients that hang up are no news."""


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/models/"):
            self.server.requests.append(f"{self.command} info")
            names = [{"rfilename": name} for name in self.server.files]
            body = json.dumps({"id": REPO, "sha": COMMIT, "siblings": names}).encode()
            known = path in (f"/api/models/{REPO}/revision/{revision}" for revision in ("main", COMMIT))
            self._send(body) if known else self._refuse(404, "RevisionNotFound")
        elif path.startswith(f"/{REPO}/resolve/"):
            name = path.removeprefix(f"/{REPO}/resolve/").partition("/")[2]
            self.server.requests.append(f"{self.command} {name}")
            content = self.server.files.get(name)
            self._send(content, name) if content is not None else self._refuse(404, "EntryNotFound")
        else:
            self._refuse(404, "RepoNotFound")

    def _send(self, content: bytes, name: str = "") -> None:
        if self.server.refusal:
            self._refuse(*self.server.refusal)
            return
        start = 0
        if wanted := self.headers.get("Range"):
            self.server.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("X-Repo-Commit", COMMIT)
        if name.endswith((".safetensors", ".bin")):
            self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Linked-Size", str(len(content)))
        git_digest = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self.send_header("ETag", f'"{git_digest}"')
        self.end_headers()
        if self.command == "GET":
            body = content[start:]
            if name == "model.safetensors" and self.server.breaks:
                self.server.breaks -= 1
                body = body[: len(body) // 2]
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    server = FakeHub()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(hub_constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(hub_download.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fails(kind: type[DiptychError], name: str = f"hf:{REPO}", **options: str) -> str:
    """The one line of what must fail."""
    with pytest.raises(kind) as caught:
        fetch(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def asked_for(hub: FakeHub) -> set[str]:
    return {request.split(" ")[1] for request in hub.requests} - {"info"}


def test_it_gets_what_a_model_needs_and_no_more(hub: FakeHub):
    hub.files |= NEVER | {"pytorch_model.bin": b"a pickle"} | OPEN_CLIP
    snapshot = fetch(f"hf:{REPO}")
    needed = {*TRANSFORMERS, "open_clip_config.json"}
    assert (snapshot.name, snapshot.revision, snapshot.weights) == (f"hf:{REPO}", COMMIT, "model.safetensors")
    assert {path.name for path in snapshot.folder.iterdir()} == asked_for(hub) == needed
    assert snapshot.sha256 == {name: hashlib.sha256(hub.files[name]).hexdigest() for name in needed}
    assert (snapshot.folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_cached_commit_asks_the_network_nothing(hub: FakeHub):
    first = fetch(f"hf:{REPO}@{COMMIT}")
    hub.requests.clear()
    assert fetch(f"hf:{REPO}", revision=COMMIT) == first
    assert hub.requests == []


def test_a_cached_branch_is_looked_up_but_not_downloaded_again(hub: FakeHub):
    first = fetch(f"hf:{REPO}")
    hub.requests.clear()
    assert fetch(f"hf:{REPO}", revision="main") == first
    assert "GET info" in hub.requests
    assert not [request for request in hub.requests if request.startswith("GET") and request != "GET info"]


def test_a_commit_that_another_program_cached_without_its_tokenizer_is_made_whole(hub: FakeHub):
    first = fetch(f"hf:{REPO}@{COMMIT}")
    for name in TOKENIZER_FILES:
        (first.folder / name).unlink()
    assert fetch(f"hf:{REPO}@{COMMIT}") == first


@pytest.mark.parametrize("offline", ["mode", "refused", 503, 429])
def test_without_the_hub_the_cache_will_do(hub: FakeHub, offline: str | int, monkeypatch: pytest.MonkeyPatch):
    first = fetch(f"hf:{REPO}")
    cut(hub, offline, monkeypatch)
    assert fetch(f"hf:{REPO}") == first


@pytest.mark.parametrize(
    ("offline", "reason"),
    [("mode", "offline mode is on"), ("refused", "refused"), (503, "the hub answers 503"), (429, "answers 429")],
)
def test_without_hub_and_cache_it_says_what_to_bring_and_where(
    hub: FakeHub, offline: str | int, reason: str, monkeypatch: pytest.MonkeyPatch
):
    cut(hub, offline, monkeypatch)
    message = fails(WeightsError)
    assert message.startswith(f"hf:{REPO} is not whole in the cache, and the hub cannot be reached: ")
    assert reason in message
    assert "config.json, preprocessor_config.json, tokenizer.json and model.safetensors" in message
    assert message.endswith('diptych.load("model").')
    assert len(hub.requests) == (offline in (503, 429)), "one try, no retries"


def cut(hub: FakeHub, how: str | int, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "mode":
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    elif how == "refused":
        monkeypatch.setattr(hub_constants, "ENDPOINT", "http://127.0.0.1:9")  # "discard": nobody listens
    else:
        assert isinstance(how, int)
        hub.refusal = (how, "")


def test_of_an_open_clip_repository_the_file_that_is_no_pickle_is_taken(hub: FakeHub):
    """timm's: config.json and model.safetensors are those of an image tower alone."""
    hub.files = OPEN_CLIP | {"config.json": TIMM_CONFIG, "model.safetensors": b"an image tower"}
    snapshot = fetch(f"hf:{REPO}")
    assert snapshot.weights == "open_clip_model.safetensors"
    assert asked_for(hub) == {"config.json", *OPEN_CLIP} - {"open_clip_pytorch_model.bin"}


def test_safetensors_of_either_kind_go_before_pickles(hub: FakeHub):
    hub.files = OPEN_CLIP | {"config.json": CLIP_CONFIG, "pytorch_model.bin": b"a pickle"}
    assert fetch(f"hf:{REPO}").weights == "open_clip_model.safetensors"
    del hub.files["open_clip_model.safetensors"]
    assert fetch(f"hf:{REPO}@{COMMIT}").weights == "open_clip_model.safetensors", "cached already"


def test_a_pickle_is_taken_where_there_is_nothing_else(hub: FakeHub):
    hub.files = TRANSFORMERS | {"pytorch_model.bin": b"a pickle"}
    del hub.files["model.safetensors"]
    assert fetch(f"hf:{REPO}").weights == "pytorch_model.bin"


def in_parts(*parts: object) -> dict[str, bytes]:
    files = {name: content for name, content in TRANSFORMERS.items() if name != "model.safetensors"}
    index = {"weight_map": {f"tensor {i}": part for i, part in enumerate(parts)}}
    return files | {"model.safetensors.index.json": json.dumps(index).encode()}


def test_weights_in_parts_are_all_got(hub: FakeHub):
    parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    hub.files = in_parts(parts[1], parts[0], parts[1]) | {part: part.encode() for part in parts}
    snapshot = fetch(f"hf:{REPO}")
    assert snapshot.weights == "model.safetensors.index.json"
    assert all((snapshot.folder / part).read_bytes() == part.encode() for part in parts)
    hub.requests.clear()
    (snapshot.folder / parts[0]).unlink()
    assert fetch(f"hf:{REPO}@{COMMIT}") == snapshot, "a missing part is got again"


@pytest.mark.parametrize(
    "part",
    [
        "../evil.safetensors",
        "/evil.safetensors",
        "a/b.safetensors",
        "..safetensors",
        ".x.safetensors",
        "x.bin",
        7,
        None,
    ],
)
def test_an_index_that_names_anything_but_files_beside_it_is_refused(hub: FakeHub, part: object):
    hub.files = in_parts("good.safetensors", part) | {"good.safetensors": b"x"}
    assert f"Got {part!r}: do not trust this model." in fails(WeightsError)
    assert not [name for name in asked_for(hub) if name.endswith((".safetensors", ".bin"))]


def test_an_index_of_absent_parts_or_of_none_is_refused(hub: FakeHub):
    hub.files = in_parts("absent.safetensors")
    assert "names absent.safetensors, which the repository does not have" in fails(WeightsError)


@pytest.mark.parametrize(
    "name",
    [
        "hf:model",
        "hf:a/b/c",
        "hf:../model",
        "hf:org/..",
        "hf:org/a..b",
        "hf:org/.hidden",
        "hf:/etc/passwd",
        "hf:org/model/",
        "hf:org\\model/x",
        "hf:org/mo del",
        "hf:org/model\n",
        "hf:org/a--b",
        "hf:org/" + "x" * 100,
        "org/model",
        "hf:",
    ],
)
def test_a_name_that_is_not_org_and_name_is_refused_before_anything_is_asked(hub: FakeHub, name: str):
    assert fails(ConfigError, name).startswith("a hub name must be hf:org/name")
    assert hub.requests == []


@pytest.mark.parametrize("revision", ["../../x", "a/../b", "/x", ".x", "a b", "a//b", "x/"])
def test_a_revision_that_climbs_is_refused_before_anything_is_asked(hub: FakeHub, revision: str):
    assert fails(ConfigError, revision=revision).startswith("a revision must be a branch, a tag or a commit")
    assert fails(ConfigError, f"hf:{REPO}@{revision}").startswith("a revision must be")
    assert "give one of them" in fails(ConfigError, f"hf:{REPO}@v1", revision="v2")
    assert hub.requests == []


def test_names_that_the_hub_lists_beyond_the_known_ones_are_never_asked_for(hub: FakeHub):
    hub.files |= {"../../evil": b"x", "/etc/passwd": b"x", "a/../model.safetensors": b"x"}
    fetch(f"hf:{REPO}")
    assert asked_for(hub) == set(TRANSFORMERS)


def test_a_download_that_breaks_off_goes_on_where_it_stopped(hub: FakeHub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub_download.time, "sleep", lambda _: None)
    monkeypatch.setattr(hub_constants, "DOWNLOAD_CHUNK_SIZE", 512)
    hub.breaks = 1
    snapshot = fetch(f"hf:{REPO}")
    assert hub.ranges == [f"bytes={len(WEIGHTS) // 2}-"]
    assert (snapshot.folder / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(("name", "digest"), [("model.safetensors", "sha256"), ("tokenizer.json", "git")])
def test_a_damaged_cache_is_noticed_and_cured_as_the_message_says(hub: FakeHub, name: str, digest: str):
    first = fetch(f"hf:{REPO}@{COMMIT}")
    blob = (first.folder / name).resolve()
    assert len(blob.name) == {"sha256": 64, "git": 40}[digest]
    blob.write_bytes(b"?" + blob.read_bytes()[1:])
    message = fails(WeightsError, f"hf:{REPO}@{COMMIT}")
    assert message.startswith(f"{first.folder / name} is damaged: its digest must be {blob.name[:12]}...")
    assert message.endswith(f"Delete {blob} and try again.")
    blob.unlink()
    assert fetch(f"hf:{REPO}@{COMMIT}") == first


def test_what_the_server_sends_must_be_what_it_announced(hub: FakeHub, monkeypatch: pytest.MonkeyPatch):
    real = hub_download.http_get

    def http_get(url: str, file, **options) -> None:
        real(url, file, **options)
        if "model.safetensors" in url:
            file.seek(0)
            file.write(b"evil")

    monkeypatch.setattr(hub_download, "http_get", http_get)
    assert "model.safetensors is damaged" in fails(WeightsError)


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (401, "GatedRepo", "is gated: ask for access on its page at the hub, and log in"),
        (403, "GatedRepo", "is gated"),
        (401, "RepoNotFound", "is not on the hub, or is private. Check the name"),
        (404, "RepoNotFound", "is not on the hub"),
        (401, "", "the hub answers 401. If the model is not public, log in"),
    ],
)
def test_a_closed_or_missing_repository_says_so(hub: FakeHub, status: int, code: str, sentence: str):
    hub.refusal = (status, code)
    message = fails(WeightsError)
    assert message.startswith(f"hf:{REPO}")
    assert sentence in message


def test_an_unknown_revision_says_so(hub: FakeHub):
    assert fails(WeightsError, revision="v9").startswith(f"hf:{REPO} has no revision v9.")


def test_a_model_that_is_known_not_to_open_is_told_with_what_to_take(hub: FakeHub):
    hub.files["config.json"] = json.dumps({"model_type": "jina_clip"}).encode()
    assert "(model_type 'jina_clip'): it is jina-clip" in (message := fails(WeightsError))
    assert "Take a SigLIP 2" in message
    assert asked_for(hub) == {"config.json"}


def test_a_repository_of_another_kind_is_refused_before_its_weights_are_got(hub: FakeHub):
    hub.files["config.json"] = json.dumps({"model_type": "bert"}).encode()
    assert "must hold the weights of a CLIP or SigLIP model" in (message := fails(WeightsError))
    assert "(model_type 'bert'): it is a text encoder alone." in message
    hub.files = dict(NEVER)
    assert "must hold config.json or open_clip_config.json" in fails(WeightsError)
    assert asked_for(hub) == {"config.json"}


PLAIN = {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}}
SWIN = PLAIN | {"vision_cfg": {"timm_model_name": "swin_base_patch4_window7_224"}}
NO_SEPARATOR = {"tokenizer_kwargs": {"strip_sep_token": True}}


@pytest.mark.parametrize(
    ("model_cfg", "said"),
    [
        (SWIN, "Got 'swin_base_patch4_window7_224': an image tower of timm that diptych does not have."),
        (PLAIN | {"vision_cfg": {"attentional_pool": "cascade"}}, "attentional_pool must be True or absent."),
        (PLAIN | {"text_cfg": {"hf_model_name": "roberta-base"}}, "a text tower of transformers"),
        (PLAIN | {"text_cfg": NO_SEPARATOR}, "strip_sep_token must be absent"),
        ([], "must hold model_cfg as a JSON object"),
    ],
)
@pytest.mark.parametrize("has_twin", [True, False])
def test_a_model_that_diptych_does_not_have_is_judged_by_its_config(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, model_cfg, said: str, has_twin: bool
):
    row = dataclasses.replace(published_models()[0], architecture="model" if has_twin else "x", hub="hf:google/twin")
    monkeypatch.setattr("diptych.weights.hub.published_models", lambda: [row])
    hub.files = OPEN_CLIP | {"open_clip_config.json": json.dumps({"model_cfg": model_cfg}).encode()}
    message = fails(WeightsError)
    assert message.startswith(f"hf:{REPO} is refused before its weights are got. ")
    assert said in message
    cure = "The same model opens as hf:google/twin." if has_twin else "`diptych models` lists models that open."
    assert message.endswith(cure)
    assert asked_for(hub) == {"open_clip_config.json"}


def test_a_model_of_transformers_is_judged_by_its_config_too(hub: FakeHub):
    config = {"model_type": "clip", "vision_config": {"hidden_act": "x"}}
    hub.files["config.json"] = json.dumps(config).encode()
    assert "x is not a hidden_act" in fails(WeightsError)
    assert asked_for(hub) == {"config.json"}


def test_a_repository_of_sentence_transformers_says_what_to_bring(hub: FakeHub):
    hub.files = {
        "modules.json": b"[]",
        "0_CLIPModel/config.json": CLIP_CONFIG,
        "0_CLIPModel/model.safetensors": WEIGHTS,
    }
    assert fails(WeightsError).endswith("Bring the folder 0_CLIPModel, which is one, and give that.")


def test_every_siglip_of_open_clip_has_a_twin_by_the_name_of_its_repository():
    twins = {model.architecture: model.hub for model in published_models() if "SigLIP" in model.architecture}
    assert len(twins) == 23
    assert all(hub.startswith("hf:google/siglip") for hub in twins.values())


def test_a_config_that_is_no_json_says_which_file(hub: FakeHub):
    hub.files["config.json"] = b"<html>"
    assert "config.json must be JSON" in fails(WeightsError)


def stop_at_weights(error: BaseException):
    real = hub_download.http_get

    def http_get(url: str, file, **options) -> None:
        if "model.safetensors" not in url:
            return real(url, file, **options)
        file.write(b"half")
        raise error

    return http_get


def test_a_full_disk_says_where(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(hub_download, "http_get", stop_at_weights(full))
    assert fails(WeightsError) == (
        f"hf:{REPO} could not be written to {tmp_path / 'cache'}: No space left on device. Make room there, or set "
        "HF_HUB_CACHE to another folder."
    )


def test_ctrl_c_leaves_nothing_half_written_and_whole_files_stay(hub: FakeHub, monkeypatch, tmp_path: Path):
    with monkeypatch.context() as patch:
        patch.setattr(hub_download, "http_get", stop_at_weights(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            fetch(f"hf:{REPO}")
    assert list((tmp_path / "cache").rglob("*.incomplete")) == []
    hub.requests.clear()
    fetch(f"hf:{REPO}")
    assert [request for request in hub.requests if request.startswith("GET")] == ["GET info", "GET model.safetensors"]


def test_huggingface_hub_is_imported_when_a_name_is_asked_for_and_not_before():
    script = "import sys, diptych, diptych.weights.hub; print('huggingface_hub' in sys.modules, 'torch' in sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "False False"
