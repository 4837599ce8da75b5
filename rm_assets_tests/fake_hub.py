"""A real HTTP server on this machine that speaks as much of the Hugging Face Hub's API as reading datasets needs."""

import hashlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from rm_assets_tests.loopback_hub import LoopbackHub, Reply, as_json, content_of, fault

COMMIT_DATE = "2026-01-02T03:04:05.000Z"


class FakeHub(LoopbackHub):
    """Dataset repositories with their commits and branches, and what was asked of them."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}  # by dataset, by commit: files
        self.branches: dict[str, dict[str, str]] = {}
        self.gated: set[str] = set()
        super().__init__()

    def commit(self, dataset: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Puts a commit with these files on top of a branch, and gives its id."""
        sha = hashlib.sha1(f"{dataset}{len(self.commits.get(dataset, {}))}".encode()).hexdigest()
        self.commits.setdefault(dataset, {})[sha] = files
        self.branches.setdefault(dataset, {})[branch] = sha
        return sha

    def reply(self, method: str, path: str, headers: Any, body: bytes) -> Reply:
        """The reply to one request."""
        address = urlsplit(path)
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        is_api = parts[0] == "api"
        if parts[is_api : is_api + 1] != ["datasets"] or len(parts) < is_api + 3:
            return fault(404, "", "no such address")
        dataset, rest = "/".join(parts[is_api + 1 : is_api + 3]), parts[is_api + 3 :]
        if self.refuses(headers):
            return fault(401, "RepoNotFound", "Invalid username or password.")
        if dataset not in self.commits:
            return fault(401, "RepoNotFound", "Repository not found")
        verb, revision, inside = (rest or ["revision"])[0], rest[1] if len(rest) > 1 else "main", rest[2:]
        if dataset in self.gated and verb == "resolve":
            return fault(403, "GatedRepo", f"Access to dataset {dataset} is restricted.")
        sha = self.branches[dataset].get(revision, revision)
        if sha not in self.commits[dataset]:
            return fault(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = self.commits[dataset][sha]
        if verb == "resolve":
            return content_of(sha, files.get("/".join(inside)), _oid, headers["Range"])
        if verb == "revision":
            siblings = [{"rfilename": name} for name in files]
            return as_json({"_id": "1", "id": dataset, "sha": sha, "private": False, "tags": [], "downloads": 0,
                          "likes": 0, "gated": False, "lastModified": COMMIT_DATE, "siblings": siblings})  # fmt: skip
        if verb == "tree":
            return as_json(list(_entries(files, "/".join(inside), recursive="recursive" in address.query)))
        asked = parse_qs(body.decode())["paths"] if verb == "paths-info" else []
        return as_json([entry for entry in _entries(files, "", recursive=True) if entry["path"] in asked])


def _entries(files: dict[str, bytes], folder: str, *, recursive: bool) -> Iterator[dict[str, Any]]:
    """The files and folders below a folder."""
    folders: dict[str, None] = {}
    for name, content in files.items():
        if folder and not name.startswith(folder + "/"):
            continue
        inner = name.removeprefix(folder + "/" if folder else "")
        parents = inner.split("/")[:-1]
        folders |= {"/".join([*([folder] if folder else []), *parents[: n + 1]]): None for n in range(len(parents))}
        if recursive or not parents:
            commit = {"id": "1" * 40, "title": "files", "date": COMMIT_DATE}
            yield {"type": "file", "oid": _oid(content), "size": len(content), "path": name, "lastCommit": commit}
    for name in folders:
        yield {"type": "directory", "oid": _oid(name.encode()), "size": 0, "path": name}


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
