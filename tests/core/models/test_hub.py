"""Downloads, against a server on this machine that answers as the hub does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from iarmem_plugin import load
from iarmem_plugin.errors import InputError
from iarmem_plugin.models.hub import fetch, known_models

CONTENT = {
    "/FoundationVision/var/resolve/main/var_d16.pth": b"the transformer" * 999,
    "/FoundationVision/var/resolve/main/vae_ch160v4096z32.pth": b"the tokenizer" * 99,
    "/yucornetto/RAR/resolve/main/rar_b.bin": b"another transformer" * 99,
    "/fun-research/TiTok/resolve/main/maskgit-vqgan-imagenet-f16-256.bin": b"another" * 9,
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A server of `CONTENT` that can be told to fail."""

    url: str
    home: Path
    status: int = 200
    breaks: bool = False
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
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        else:
            codes = {401: "GatedRepo", 404: "EntryNotFound"}
            self.send_header("X-Error-Code", codes.get(status, "Other"))
        self.send_header("Content-Length", str(len(body)))
        if self.hub.breaks:
            self.send_header("Connection", "close")
        self.end_headers()
        if whole:
            self.wfile.write(body[:100] if self.hub.breaks else body)
        self.close_connection = self.hub.breaks

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


def assert_plain_error(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("Error: "), done.stderr
    assert [part for part in expected if part not in line] == [], line


def test_both_files_come_into_a_folder_and_the_next_command_is_shown(
    hub: Hub, tmp_path: Path
) -> None:
    folder = tmp_path / "my weights"
    done = hub.iarmem("fetch", "var-d16", "--out", folder)
    assert done.returncode == 0, done.stderr
    *paths, then = done.stdout.splitlines()
    assert paths == [str(folder / "var_d16.pth"), str(folder / "vae_ch160v4096z32.pth")]
    assert [Path(path).read_bytes() for path in paths] == list(CONTENT.values())[:2]
    options = f"--weights '{paths[0]}' --tokenizer '{paths[1]}'"
    assert f"iarmem localize var-d16 {options} --images FOLDER --out FOLDER" in then


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
        f"they were fetched already, so give --weights {found['weights']} --tokenizer ",
    )
    assert hub.asked == asked


def test_nothing_is_fetched_that_was_not_asked_for(hub: Hub, tmp_path: Path) -> None:
    pictures = ("--images", tmp_path, "--out", tmp_path / "out")
    assert_plain_error(
        hub.iarmem("localize", "var-d16", *pictures),
        "var-d16 needs --weights and --tokenizer: 'iarmem fetch var-d16' downloads var_d16.pth",
    )
    assert hub.iarmem("models").returncode == 0
    assert hub.asked == []


def test_a_broken_download_is_no_file(hub: Hub, tmp_path: Path) -> None:
    hub.breaks = True
    done = hub.iarmem("fetch", "var-d16", "--out", tmp_path / "w")
    assert_plain_error(done, "the download of var_d16.pth", "run the same command again")
    assert not (tmp_path / "w" / "var_d16.pth").exists()
    hub.breaks = False
    assert hub.iarmem("fetch", "var-d16", "--out", tmp_path / "w").returncode == 0
    assert (tmp_path / "w" / "var_d16.pth").read_bytes() == b"the transformer" * 999


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
def test_a_refusal_of_the_hub_is_told(hub: Hub, status: int, told: str) -> None:
    hub.status = status
    done = hub.iarmem("fetch", "var-d16")
    assert_plain_error(done, "cannot fetch var_d16.pth from FoundationVision/var", told)


def test_a_file_that_is_not_hosted_any_more_is_told(hub: Hub) -> None:
    done = hub.iarmem("fetch", "var-d20")
    assert_plain_error(done, "cannot fetch var_d20.pth", "there is no such file (HTTP 404)")


@pytest.mark.parametrize(
    "offline",
    ["1", pytest.param("0", marks=pytest.mark.slow)],  # it tries again for half a minute
)
def test_no_network_is_told(hub: Hub, offline: str) -> None:
    done = hub.iarmem("fetch", "var-d16", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE=offline)
    assert_plain_error(done, "cannot fetch var_d16.pth: the hub", "look at the connection")


def test_what_cannot_be_fetched_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="var-organism is bundled: there is nothing to fetch"):
        fetch("var-organism")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; give a folder"):
        fetch("var-d16", tmp_path / "file")


def test_an_organism_needs_no_files_and_takes_none(tmp_path: Path) -> None:
    (tmp_path / "x.pth").touch()
    with pytest.raises(InputError, match="is bundled: leave out --weights"):
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
