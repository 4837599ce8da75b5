"""A real HTTP server on this machine that speaks as much of the Hugging Face Hub's API as releasing a model needs.

Model repositories with commits, branches and tags; large files by LFS; a commit on a stale parent is refused. A test can
cut the connection at a request and let somebody else commit in between.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from rm_assets_tests.loopback_hub import LoopbackHub, Reply, as_json, content_of, fault

Files = dict[str, bytes]
ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
ZERO = "0" * 40


class FakeRepo:
    """Commits by id, each with its parent, title and files; branches and tags."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.commits: dict[str, tuple[str, str, Files]] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.private = True
        self.commit("main", "initial commit", {".gitattributes": ATTRIBUTES})

    def commit(self, branch: str, title: str, files: Files) -> str:
        """Puts a commit with exactly these files on a branch."""
        parent = self.branches.get(branch, ZERO)
        sha = hashlib.sha1(f"{self.name} {parent} {title} {len(self.commits)}".encode()).hexdigest()
        self.commits[sha] = (parent, title, files)
        self.branches[branch] = sha
        return sha

    def files(self, revision: str) -> Files:
        """The files of a branch, a tag or a commit."""
        return self.commits[self.resolve(revision)][2]

    def resolve(self, revision: str) -> str:
        return self.branches.get(revision) or self.tags.get(revision) or revision

    def log(self, revision: str) -> list[str]:
        """Titles of the commits up to a revision, newest first."""
        titles, sha = [], self.resolve(revision)
        while sha != ZERO:
            parent, title, _ = self.commits[sha]
            titles.append(title)
            sha = parent
        return titles


class FakeModelHub(LoopbackHub):
    """Model repositories, what was asked, and what goes wrong."""

    def __init__(self) -> None:
        self.repos: dict[str, FakeRepo] = {}
        self.lfs: Files = {}
        self.before_commit: list[Callable[[], None]] = []
        """What happens just before the next commits, one each."""
        super().__init__()

    def reply(self, method: str, path: str, headers: Any, body: bytes) -> Reply:
        """The reply to one request."""
        parts = [unquote(part) for part in urlsplit(path).path.strip("/").split("/")]
        if parts[0] == "lfs":
            return self._lfs_object(method, parts[-1], body)
        if self.refuses(headers):
            return fault(401, "", "Invalid username or password.")
        if parts == ["api", "whoami-v2"]:
            return as_json({"type": "user", "name": "me", "orgs": []})
        if parts == ["api", "validate-yaml"]:
            return as_json({"errors": [], "warnings": []})
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if name in self.repos:
                there = {"error": "You already created it", "url": f"{self.endpoint}/{name}"}
                return 409, {}, json.dumps(there).encode()
            self.repos[name] = FakeRepo(name)
            return as_json({"url": f"{self.endpoint}/{name}"})
        if parts[-3:] == ["lfs", "objects", "batch"]:
            return self._batch(json.loads(body))
        is_api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if is_api else parts[:2])
        if name not in self.repos:
            return fault(404, "RepoNotFound", "Repository not found")
        rest = parts[4:] if is_api else parts[2:]
        return self._of_repo(method, self.repos[name], rest, body)

    def _of_repo(self, method: str, repo: FakeRepo, rest: list[str], body: bytes) -> Reply:
        verb, what = (rest or ["revision"])[0], rest[1] if len(rest) > 1 else "main"
        if verb == "refs":
            heads, tags = ("heads", repo.branches), ("tags", repo.tags)
            refs = [
                [{"name": n, "ref": f"refs/{k}/{n}", "targetCommit": c} for n, c in of.items()]
                for k, of in (heads, tags)
            ]
            return as_json({"branches": refs[0], "tags": refs[1], "converts": [], "pullRequests": []})
        if verb in ("branch", "tag"):
            asked = json.loads(body)
            name, at = (what, asked.get("startingPoint")) if verb == "branch" else (asked["tag"], what)
            of = repo.branches if verb == "branch" else repo.tags
            if name in of:
                return fault(409, "", f"Reference refs/{name} already exists")
            of[name] = repo.resolve(at or "main")
            return as_json({})
        if repo.resolve(what) not in repo.commits:
            return fault(404, "RevisionNotFound", f"Invalid rev id: {what}")
        sha, files = repo.resolve(what), repo.files(what)
        if verb == "preupload":
            modes = [
                {"path": f["path"], "shouldIgnore": False, "oid": _oid(files.get(f["path"])),
                 "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular"}
                for f in json.loads(body)["files"]
            ]  # fmt: skip
            return as_json({"files": modes})
        if verb == "commit":
            return self._commit(repo, what, body)
        if verb == "tree":
            return as_json([_entry(name, content) for name, content in files.items()])
        if verb == "resolve":
            return content_of(sha, files.get("/".join(rest[2:])), _sha256)
        siblings = [{"rfilename": name} for name in files]
        return as_json({"_id": "1", "id": repo.name, "sha": sha, "private": repo.private, "tags": [], "downloads": 0, "likes": 0,
                      "siblings": siblings})  # fmt: skip

    def _commit(self, repo: FakeRepo, branch: str, body: bytes) -> Reply:
        if self.before_commit:
            self.before_commit.pop(0)()
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, repo.branches[branch]):
            return fault(412, "", "A commit has happened since. Please refresh and try again.")
        files = dict(repo.files(branch))
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.lfs:
                    return fault(400, "", "LFS pointer pointed to a file that does not exist")
                files[value["path"]] = self.lfs[value["oid"]]
            else:
                del files[value["path"]]
        sha = repo.commit(branch, header["summary"], files)
        return as_json({"commitUrl": f"{self.endpoint}/{repo.name}/commit/{sha}", "commitOid": sha, "success": True})

    def _batch(self, asked: dict[str, Any]) -> Reply:
        objects = []
        for each in asked["objects"]:
            upload = {"href": f"{self.endpoint}/lfs/{each['oid']}", "header": {}}
            objects.append({**each, **({} if each["oid"] in self.lfs else {"actions": {"upload": upload}})})
        return as_json({"transfer": "basic", "objects": objects}, "application/vnd.git-lfs+json")

    def _lfs_object(self, method: str, oid: str, body: bytes) -> Reply:
        if _sha256(body) != oid:
            return fault(400, "", "these are not the bytes of this object")
        self.lfs[oid] = body
        return 200, {}, b""


def _is_lfs(name: str) -> bool:
    return name.endswith(".safetensors")


def _oid(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(name: str, content: bytes) -> dict[str, Any]:
    entry = {"type": "file", "oid": _oid(content), "size": len(content), "path": name}
    if _is_lfs(name):
        entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 130}
    return entry


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
