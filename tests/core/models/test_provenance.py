"""The commit of a checkout is read from its files, and never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from iarmem_plugin.models import provenance

HEAD = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    module = tmp_path / "iarmem_plugin" / "models" / "provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(module))
    return tmp_path / ".git"


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        file = folder / name.replace("__", "/").replace("_", "-")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_a_branch_or_none_is_followed_to_its_commit(checkout: Path) -> None:
    assert provenance.commit() == "not known"
    write(checkout, HEAD=f"{HEAD}\n")
    assert provenance.commit() == HEAD
    write(checkout, HEAD="ref: refs/heads/main\n", packed_refs=f"# pack\n{HEAD} refs/heads/main\n")
    assert provenance.commit() == HEAD
    write(checkout, refs__heads__main=f"{HEAD[::-1]}\n")
    assert provenance.commit() == HEAD[::-1]


def test_a_worktree_is_followed_to_its_checkout(checkout: Path, tmp_path: Path) -> None:
    own = tmp_path / "main" / "worktrees" / "mine"
    checkout.write_text(f"gitdir: {own}\n")
    write(own, HEAD="ref: refs/heads/mine\n", commondir="../..\n")
    assert provenance.commit() == "not known"
    write(tmp_path / "main", refs__heads__mine=f"{HEAD}\n")
    assert provenance.commit() == HEAD


@pytest.mark.parametrize("text", ["", "ref: refs/heads/none\n", "<script>\n"])
def test_what_is_no_commit_is_not_known(checkout: Path, text: str) -> None:
    write(checkout, HEAD=text)
    assert provenance.commit() == "not known"
