"""Downloads, against a server on this machine that answers as the hub does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import huggingface_hub
import pytest
from huggingface_hub import constants

from iarmem_plugin import load, plugins
from iarmem_plugin.errors import FetchError, InputError
from iarmem_plugin.models.hub import check_files, fetch, known_models
from iarmem_plugin.testing.tiny import TinyAdapter

CONTENT = {
    "/FoundationVision/var/resolve/main/var_d16.pth": b"the transformer" * 999,
    "/FoundationVision/var/resolve/main/vae_ch160v4096z32.pth": b"the tokenizer" * 99,
    "/yucornetto/RAR/resolve/main/rar_b.bin": b"another transformer" * 99,
    "/fun-research/TiTok/resolve/main/maskgit-vqgan-imagenet-f16-256.bin": b"another" * 9,
}
TOKENIZER = "maskgit-vqgan-imagenet-f16-256.bin"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A server of `CONTENT` that can be told to fail."""

    url: str
    home: Path
    status: int = 200
    breaks: bool = False
    digests: bool = True
    other_bytes: bool = False
    asked: list[str] = field(default_factory=list)

    def iarmem(self, *arguments: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run ``iarmem`` in a process of its own that knows no other hub."""
        command = [sys.executable, "-m", "iarmem_plugin", *map(str, arguments)]
        ours = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "COLUMNS": "300",
            "NO_COLOR": "1",
            "OMP_NUM_THREADS": "1",
        }
        environment = os.environ | ours | settings
        for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_HUB_CACHE"):
            environment.pop(proxy, None)
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=60
        )


class Answers(BaseHTTPRequestHandler):
    """What the hub answers to the two requests a download consists of."""

    hub: ClassVar[Hub]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(whole=False)

    def do_GET(self) -> None:
        self.hub.asked.append(self.path.rpartition("/")[2])
        self.answer(whole=True)

    def answer(self, *, whole: bool) -> None:
        content = CONTENT.get(self.path)
        status = 404 if content is None else self.hub.status
        body = content if status == 200 and content is not None else b""
        self.send_response(status)
        if status == 200:
            self.send_header("ETag", f'"{self.digest(body)}"')
            self.send_header("X-Repo-Commit", COMMIT)
        else:
            codes = {401: "GatedRepo", 404: "EntryNotFound"}
            self.send_header("X-Error-Code", codes.get(status, "Other"))
        self.send_header("Content-Length", str(len(body)))
        if self.hub.breaks:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.hub.other_bytes:
            body = body.swapcase()
        if whole:
            self.wfile.write(body[:100] if self.hub.breaks else body)
        self.close_connection = self.hub.breaks

    def digest(self, body: bytes) -> str:
        return hashlib.sha256(body).hexdigest() if self.hub.digests else "some-mirrors-own"

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    Answers.hub = Hub(f"http://127.0.0.1:{server.server_port}", tmp_path / "home")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield Answers.hub
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def here(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The same hub for this process, with a cache of its own."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub.home))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    huggingface_hub.close_session()
    return hub


def assert_plain_error(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("Error: "), done.stderr
    assert [part for part in expected if part not in line] == [], line


def test_both_files_come_into_a_folder_and_the_next_command_is_shown(
    hub: Hub, tmp_path: Path
) -> None:
    folder = tmp_path / "my weights"
    done = hub.iarmem("fetch", "rar-b", "--out", folder)
    assert done.returncode == 0, done.stderr
    *paths, then = done.stdout.splitlines()
    assert paths == [str(folder / "rar_b.bin"), str(folder / TOKENIZER)]
    assert [Path(path).read_bytes() for path in paths] == list(CONTENT.values())[2:]
    options = f"--weights '{paths[0]}' --tokenizer '{paths[1]}'"
    assert f"iarmem localize rar-b {options} --images FOLDER --out FOLDER" in then


def test_files_of_two_repositories_come_into_the_cache_and_are_known_from_then_on(
    hub: Hub, tmp_path: Path
) -> None:
    done = hub.iarmem("fetch", "rar-b", "--json")
    found = json.loads(done.stdout)
    assert Path(found["weights"]).read_bytes() == b"another transformer" * 99
    assert Path(found["tokenizer"]).read_bytes() == b"another" * 9
    listed = json.loads(hub.iarmem("models", "--json").stdout)["models"]
    assert [one["name"] for one in listed if one["paths"]] == ["rar-b"]
    # nothing is fetched again, and loading says what to type
    asked = list(hub.asked)
    assert hub.iarmem("fetch", "rar-b").returncode == 0
    pictures = ("--images", tmp_path, "--out", tmp_path / "out")
    assert_plain_error(
        hub.iarmem("localize", "rar-b", *pictures),
        "rar-b needs --weights and --tokenizer: they were fetched already",
    )
    assert hub.asked == asked


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("cache", "so give --weights cache/w.bin --tokenizer cache/t.bin"),
        ("c" * 200, "and 'iarmem fetch var-d16' says what to type"),
    ],
)
def test_what_was_fetched_is_named_unless_it_would_be_cut(
    monkeypatch: pytest.MonkeyPatch, folder: str, told: str
) -> None:
    files = {"weights": Path(folder, "w.bin"), "tokenizer": Path(folder, "t.bin")}
    monkeypatch.setattr("iarmem_plugin.models.hub.present", lambda _: files)
    with pytest.raises(InputError, match=f"they were fetched already, {told}$"):
        load("var-d16")


def test_nothing_is_fetched_that_was_not_asked_for(hub: Hub, tmp_path: Path) -> None:
    pictures = ("--images", tmp_path, "--out", tmp_path / "out")
    assert_plain_error(
        hub.iarmem("localize", "var-d16", *pictures),
        "var-d16 needs --weights and --tokenizer: 'iarmem fetch var-d16' downloads var_d16.pth",
    )
    assert hub.iarmem("models").returncode == 0
    assert hub.asked == []


def refusal(name: str = "rar-b", folder: Path | None = None) -> str:
    with pytest.raises(FetchError) as caught:
        fetch(name, folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 400
    return str(caught.value)


def test_a_broken_download_is_no_file(here: Hub, tmp_path: Path) -> None:
    here.breaks = True
    told = refusal(folder=tmp_path / "w")
    assert "the download of rar_b.bin" in told
    assert "run the same command again" in told
    assert not (tmp_path / "w" / "rar_b.bin").exists()
    here.breaks = False
    assert fetch("rar-b", tmp_path / "w")["weights"].read_bytes() == b"another transformer" * 99


@pytest.mark.parametrize("cached", [True, False])
def test_other_bytes_than_the_hubs_digest_says_are_thrown_away(
    here: Hub, tmp_path: Path, cached: bool
) -> None:
    here.other_bytes = True
    folder = None if cached else tmp_path / "w"
    assert "rar_b.bin came from yucornetto/RAR with other bytes than its digest" in refusal(
        folder=folder
    )
    assert [row["paths"] for row in known_models() if row["name"] == "rar-b"] == [[]]
    here.other_bytes = False
    weights = fetch("rar-b", folder)["weights"]
    assert weights.read_bytes() == b"another transformer" * 99


def test_a_release_that_is_known_is_compared_with_its_own_digest(here: Hub, tmp_path: Path) -> None:
    told = refusal("var-d16", tmp_path)  # whose tokenizer's is known
    pinned = plugins.find_variant("var-d16")[1].sha256["tokenizer"]
    assert "vae_ch160v4096z32.pth came from FoundationVision/var with other bytes" in told
    assert pinned[:16] in told
    assert not (tmp_path / "vae_ch160v4096z32.pth").exists()
    assert (tmp_path / "var_d16.pth").exists()


@pytest.mark.parametrize("digests", [True, False])
def test_a_users_own_file_of_that_name_is_never_overwritten(
    here: Hub, tmp_path: Path, digests: bool
) -> None:
    own = tmp_path / "rar_b.bin"
    own.write_bytes(b"my own")
    here.digests = digests
    if digests:
        assert "rar_b.bin is there already, and is not rar_b.bin from" in refusal(folder=tmp_path)
    else:  # a mirror that says nothing which could be compared
        assert fetch("rar-b", tmp_path)["weights"] == own
    assert own.read_bytes() == b"my own"
    assert "rar_b.bin" not in here.asked


def test_a_file_of_the_hub_that_came_another_way_is_taken(here: Hub, tmp_path: Path) -> None:
    own = tmp_path / "rar_b.bin"
    own.write_bytes(b"another transformer" * 99)
    assert fetch("rar-b", tmp_path)["weights"] == own
    assert here.asked == [TOKENIZER]


@pytest.mark.parametrize("cached", [True, False])
def test_a_file_that_was_damaged_since_is_named_and_left(
    here: Hub, tmp_path: Path, cached: bool
) -> None:
    folder = None if cached else tmp_path / "w"
    path = fetch("rar-b", folder)["weights"]
    path.write_bytes(b"damaged")
    told = refusal(folder=folder)
    assert f"{path}" in told
    assert "was left" in told
    assert path.read_bytes() == b"damaged"


def test_what_is_there_needs_no_network(
    here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = fetch("rar-b", tmp_path / "w")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("rar-b", tmp_path / "w") == files
    (tmp_path / "rar_b.bin").write_bytes(b"my own")
    assert "the hub" in refusal(folder=tmp_path)
    assert "look at the connection" in refusal(folder=tmp_path)


def test_a_folder_that_cannot_be_made_is_refused_before_the_download(here: Hub) -> None:
    with pytest.raises(InputError, match="looks like a URL"):
        fetch("rar-b", Path("s3://bucket/weights"))
    assert here.asked == []


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "refuses it (HTTP 401): it may be private, gated or gone"),
        (403, "refuses it (HTTP 403)"),
        (404, "there is no such file (HTTP 404); download it by hand"),
        pytest.param(
            *(500, "the hub answers HTTP 500; run the same command again later"),
            marks=pytest.mark.slow,  # the hub's library tries again for half a minute
        ),
    ],
)
def test_a_refusal_of_the_hub_is_told(here: Hub, status: int, told: str) -> None:
    here.status = status
    found = refusal("var-d16")
    assert "cannot fetch var_d16.pth from FoundationVision/var" in found
    assert told in found


def test_a_file_that_is_not_hosted_any_more_is_told(here: Hub) -> None:
    assert "cannot fetch var_d20.pth" in (told := refusal("var-d20"))
    assert "there is no such file (HTTP 404)" in told


@pytest.mark.parametrize(
    "offline",
    ["1", pytest.param("0", marks=pytest.mark.slow)],  # it tries again for half a minute
)
def test_no_network_is_told(hub: Hub, offline: str) -> None:
    done = hub.iarmem("fetch", "var-d16", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE=offline)
    assert_plain_error(done, "cannot fetch var_d16.pth: the hub", "look at the connection")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/dev/zero", "is not a file: '/dev/zero'"),
        ("x" * 300, "File name too long: 'xxx"),
        ("a\0b", "null byte: 'a"),
        ("nothing\x1b[31m.pth", r"no such file: 'nothing\x1b[31m.pth'"),
    ],
)
def test_what_is_no_weight_file_is_refused_in_one_line(path: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        load("rar-b", path, path)
    assert told in str(caught.value).replace("\\\\", "\\")
    assert len(str(caught.value)) <= 400


def test_what_cannot_be_fetched_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="var-organism is bundled: there is nothing to fetch"):
        fetch("var-organism")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; give a folder"):
        fetch("var-d16", tmp_path / "file")


def test_an_organism_needs_no_files_and_has_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "x.pth").touch()
    with pytest.raises(InputError, match="is bundled with its tokenizer: leave out --tokenizer"):
        load("var-organism", tmp_path / "x.pth", tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["var-d16", "rar-b", "var"])
def test_the_file_that_is_not_named_is_asked_for(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.pth").touch()
    with pytest.raises(InputError, match=f"{name} needs --tokenizer: "):
        load(name, tmp_path / "x.pth")
    with pytest.raises(InputError, match=f"{name} needs --weights: "):
        load(name, tokenizer=tmp_path / "x.pth")
    with pytest.raises(InputError, match="is a folder: "):
        load(name, tmp_path, tmp_path)


def test_every_model_says_its_sizes_files_hosts_and_licence() -> None:
    found = {row["name"]: row for row in known_models()}
    published = {f"var-d{depth}" for depth in (16, 20, 24, 30, 36)}
    published |= {f"rar-{size}" for size in ("b", "l", "xl", "xxl")}
    assert published < set(found)
    for name in published:
        row = found[name]
        assert len(row["files"]) == len(row["repositories"]) == 2
        assert row["licence"] == "not checked"
    assert found["var-d36"]["resolution"] == 512
    assert found["var-organism"]["present"]


def test_the_files_that_a_plugins_model_declares_are_asked_for_by_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {"weights": "a.safetensors", "text encoder": "b.safetensors"}
    variant = replace(TinyAdapter.variants()["tiny"], files=files)
    monkeypatch.setattr(plugins, "find_variant", lambda _: (TinyAdapter, variant))
    message = "^tiny needs --weights and --file 'text encoder=PATH': "
    with pytest.raises(InputError, match=message):
        check_files("tiny", {})
