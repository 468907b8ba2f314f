"""What a Hub on the loopback interface holds, and its answers to the requests of huggingface_hub and its like."""

import base64
import hashlib
import json
import re
import socket
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

if TYPE_CHECKING:
    from local_hub import LocalHub

TOKENS = {"hf_alice": "alice", "hf_bob": "bob"}
LFS_SUFFIXES = (".safetensors", ".parquet", ".arrow", ".wav", ".flac")
LFS_SIZE = 10_000_000  # bytes; larger files go by LFS whatever their suffix
DATE = "2026-01-01T00:00:00.000Z"
KIND = r"/api/(models|datasets|spaces)"
NAME = r"([^/]+/[^/]+)"
FILE_HOST = r"/(?:(datasets|spaces)/)?([^/]+/[^/]+)"


@dataclass
class Commit:
    sha: str
    files: dict[str, bytes]
    title: str


@dataclass
class Repository:
    private: bool
    gated: bool = False
    sdk: str | None = None
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], title: str, ref: str = "refs/heads/main") -> Commit:
        seed = f"{len(self.commits)} {title} {sorted(files)}"
        commit = Commit(hashlib.sha1(seed.encode()).hexdigest(), files, title)
        self.commits[commit.sha] = commit
        self.refs[ref] = commit.sha
        return commit

    def find(self, revision: str) -> Commit | None:
        for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if ref in self.refs:
                return self.commits[self.refs[ref]]
        return self.commits.get(revision)

    @property
    def main(self) -> Commit:
        return self.find("main")


@dataclass
class Failure:
    """Breaks the `at`-th request from now on that matches, and those after it, `times` in all."""

    request: str
    status: int | None
    message: str
    code: str | None
    at: int
    times: int
    after_the_deed: bool

    def strikes(self, request: str) -> bool:
        if not re.search(self.request, request):
            return False
        self.at -= 1
        return -self.times < self.at <= 0


class Refusal(Exception):
    def __init__(self, status: int, message: str, code: str | None = None):
        self.status, self.message, self.code = status, message, code


class HubHandler(BaseHTTPRequestHandler):
    hub: "LocalHub"
    protocol_version = "HTTP/1.1"

    ROUTES = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("POST", r"/api/repos/create", "create_repository"),
        ("DELETE", r"/api/repos/delete", "delete_repository"),
        ("GET", rf"{KIND}", "list_repositories"),
        ("GET", rf"{KIND}/{NAME}", "info"),
        ("GET", rf"{KIND}/{NAME}/revision/([^/]+)", "info"),
        ("GET", rf"{KIND}/{NAME}/refs", "refs"),
        ("GET", rf"{KIND}/{NAME}/commits/([^/]+)", "history"),
        ("GET", rf"{KIND}/{NAME}/tree/([^/]+)(?:/(.*))?", "tree"),
        ("GET", rf"{KIND}/{NAME}/auth-check", "check_access"),
        ("POST", rf"{KIND}/{NAME}/paths-info/([^/]+)", "paths_info"),
        ("POST", rf"{KIND}/{NAME}/preupload/([^/]+)", "preupload"),
        ("POST", rf"{KIND}/{NAME}/commit/([^/]+)", "commit"),
        ("POST", rf"{KIND}/{NAME}/branch/(.+)", "create_branch"),
        ("DELETE", rf"{KIND}/{NAME}/branch/(.+)", "delete_branch"),
        ("POST", rf"{KIND}/{NAME}/tag/([^/]+)", "create_tag"),
        ("GET", rf"{KIND}/{NAME}/discussions", "discussions"),
        ("POST", rf"{KIND}/{NAME}/discussions", "open_discussion"),
        ("PUT", rf"{KIND}/{NAME}/settings", "change_settings"),
        ("POST", rf"{FILE_HOST}\.git/info/lfs/objects/batch", "large_file_batch"),
        ("PUT", r"/lfs/([0-9a-f]{64})", "put_large_file"),
        ("GET", rf"{FILE_HOST}/(?:resolve|raw)/([^/]+)/(.+)", "download"),
    )

    def log_message(self, *args):
        pass

    def handle_request(self):
        url = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.body = self.read_body()
        method = "GET" if self.command == "HEAD" else self.command
        request = f"{self.command} {url.path}"
        with self.hub.lock:
            self.hub.requests.append(request)
            failure = next((failure for failure in self.hub.failures if failure.strikes(request)), None)
            try:
                if failure is not None and not failure.after_the_deed:
                    return self.fail(failure)
                for route_method, pattern, action in self.ROUTES:
                    match = re.fullmatch(pattern, url.path)
                    if match and route_method == method:
                        answer = getattr(self, action)(*(group and unquote(group) for group in match.groups()))
                        return self.answer(answer) if failure is None else self.fail(failure)
                raise Refusal(404, f"This Hub has no route {request}")
            except Refusal as refusal:
                headers = {"X-Error-Message": refusal.message}
                if refusal.code:
                    headers["X-Error-Code"] = refusal.code
                self.send({"error": refusal.message}, refusal.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request

    def answer(self, answer) -> None:
        if answer is not None:
            self.send(*answer) if isinstance(answer, tuple) else self.send(answer)

    def fail(self, failure: Failure) -> None:
        if failure.status is not None:
            raise Refusal(failure.status, failure.message, failure.code)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def send(self, content, status: int = 200, headers: dict[str, str] | None = None) -> None:
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), "Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    @property
    def json(self) -> dict:
        return json.loads(self.body or b"{}")

    # Who may do what

    @property
    def user(self) -> str | None:
        return TOKENS.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def repository(self, kind: str | None, name: str, write: bool = False, files: bool = False) -> Repository:
        repository = self.hub.repositories.get((kind or "models", name))
        is_owner = self.user == name.partition("/")[0]
        if repository is None or (repository.private and not is_owner):
            raise Refusal(401 if self.user is None else 404, "Repository not found", "RepoNotFound")
        if (write or files) and repository.gated and not is_owner:
            raise Refusal(403, f"Access to {kind} {name} is restricted and you are not in the list", "GatedRepo")
        if write and self.user is None:
            raise Refusal(401, "Invalid username or password.")
        if write and not is_owner and "create_pr" not in self.query:
            raise Refusal(403, f"You don't have the rights to write to {name}")
        return repository

    def find_commit(self, repository: Repository, revision: str | None) -> Commit:
        commit = repository.find(revision or "main")
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def whoami(self):
        if self.user is None:
            raise Refusal(401, "Invalid credentials in Authorization header")
        token = {"accessToken": {"displayName": "test", "role": "write"}}
        return {"type": "user", "name": self.user, "fullname": self.user, "orgs": [], "auth": token}

    def check_access(self, kind, name):
        self.repository(kind, name, files=True)
        return {}

    # Repositories

    def create_repository(self):
        if self.user is None:
            raise Refusal(401, "Invalid username or password.")
        namespace, kind = self.json.get("organization") or self.user, f"{self.json.get('type') or 'model'}s"
        name = f"{namespace}/{self.json['name']}"
        if namespace != self.user:
            raise Refusal(403, f"You don't have the rights to create a {kind[:-1]} under the namespace {namespace!r}")
        url = f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{name}"
        if (kind, name) in self.hub.repositories:
            return {"error": f"You already created this {kind[:-1]} repo", "url": url}, 409
        private = self.json.get("visibility") == "private" or bool(self.json.get("private"))
        self.hub.create(name, kind, private=private, sdk=self.json.get("sdk"))
        return {"url": url, "name": name, "id": name}

    def delete_repository(self):
        kind = f"{self.json.get('type') or 'model'}s"
        name = f"{self.json.get('organization') or self.user}/{self.json['name']}"
        self.repository(kind, name, write=True)
        del self.hub.repositories[kind, name]
        return {}

    def change_settings(self, kind, name):
        repository = self.repository(kind, name, write=True)
        repository.private = self.json.get("visibility", "private" if self.json.get("private") else "") == "private"
        repository.gated = bool(self.json.get("gated", repository.gated))
        return self.json

    def list_repositories(self, kind):
        visible = (
            (name, repository)
            for (other, name), repository in self.hub.repositories.items()
            if other == kind and (not repository.private or self.user == name.partition("/")[0])
        )
        return [self.describe(name, repository, repository.main) for name, repository in visible]

    def info(self, kind, name, revision=None):
        repository = self.repository(kind, name)
        return self.describe(name, repository, self.find_commit(repository, revision))

    def describe(self, name: str, repository: Repository, commit: Commit) -> dict:
        card = metadata(commit.files.get("README.md", b""))
        return {
            "_id": hashlib.md5(name.encode()).hexdigest()[:24],
            "id": name,
            "modelId": name,
            "author": name.partition("/")[0],
            "sha": commit.sha,
            "private": repository.private,
            "gated": "manual" if repository.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "sdk": repository.sdk,
            "tags": card.get("tags") or [],
            "pipeline_tag": card.get("pipeline_tag"),
            "library_name": card.get("library_name"),
            "cardData": card,
            "lastModified": DATE,
            "createdAt": DATE,
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        }

    def refs(self, kind, name):
        refs = self.repository(kind, name).refs
        found = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
        groups = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/pr/": "pullRequests"}
        for ref, sha in refs.items():
            prefix = next(prefix for prefix in groups if ref.startswith(prefix))
            found[groups[prefix]].append({"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": sha})
        return found

    def history(self, kind, name, revision):
        repository = self.repository(kind, name)
        self.find_commit(repository, revision)
        listed = [
            {"id": commit.sha, "title": commit.title, "message": "", "date": DATE, "authors": []}
            for commit in reversed(repository.commits.values())
        ]
        return listed, 200, {"X-Total-Count": str(len(listed))}

    def create_branch(self, kind, name, branch):
        repository = self.repository(kind, name, write=True)
        repository.refs[f"refs/heads/{branch}"] = self.find_commit(repository, self.json.get("startingPoint")).sha
        return {}, 201

    def delete_branch(self, kind, name, branch):
        del self.repository(kind, name, write=True).refs[f"refs/heads/{branch}"]
        return {}

    def create_tag(self, kind, name, revision):
        repository = self.repository(kind, name, write=True)
        repository.refs[f"refs/tags/{self.json['tag']}"] = self.find_commit(repository, revision).sha
        return {}, 201

    def discussions(self, kind, name):
        refs = self.repository(kind, name).refs
        numbers = [int(ref.removeprefix("refs/pr/")) for ref in refs if ref.startswith("refs/pr/")]
        author = {"name": self.user or "anonymous"}
        listed = [
            {
                "num": number,
                "title": self.repository(kind, name).commits[refs[f"refs/pr/{number}"]].title,
                "author": author,
                "status": "open",
                "isPullRequest": True,
                "createdAt": DATE,
                "repo": {"name": name, "type": kind[:-1]},
            }
            for number in numbers
        ]
        return {"discussions": listed, "count": len(listed), "start": 0}

    def open_discussion(self, kind, name):
        self.query["create_pr"] = "1"  # open to whoever may read
        repository = self.repository(kind, name, write=True)
        number = 1 + sum(ref.startswith("refs/pr/") for ref in repository.refs)
        repository.refs[f"refs/pr/{number}"] = repository.main.sha
        return {"num": number, "pullRequest": {"base": "refs/heads/main"}}

    # Files

    def tree(self, kind, name, revision, folder=None):
        files = self.find_commit(self.repository(kind, name), revision).files
        prefix = f"{folder.strip('/')}/" if folder else ""
        inside = sorted(path for path in files if path.startswith(prefix))
        if prefix and not inside:
            raise Refusal(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        recursive = self.query.get("recursive", "false").lower() in ("1", "true")
        folders = {prefix + "/".join(parts[:depth]) for path in inside
                   for parts in [path.removeprefix(prefix).split("/")] for depth in range(1, len(parts))}  # fmt: skip
        shown = [path for path in inside if recursive or "/" not in path.removeprefix(prefix)]
        folders = sorted(path for path in folders if recursive or "/" not in path.removeprefix(prefix))
        listed = [file_entry(path, files[path]) for path in shown]
        return listed + [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in folders]

    def paths_info(self, kind, name, revision):
        files = self.find_commit(self.repository(kind, name), revision).files
        paths = self.json["paths"] if self.body.startswith(b"{") else parse_qs(self.body.decode())["paths"]
        return [file_entry(path, files[path]) for path in paths if path in files]

    def preupload(self, kind, name, revision):
        files = self.find_commit(self.repository(kind, name, write=True), revision).files
        answers = [
            {
                "path": path,
                "uploadMode": "lfs" if is_large(path, size) else "regular",
                "shouldIgnore": False,
                "oid": content_id(path, files[path]) if path in files else None,
            }
            for path, size in ((file["path"], file["size"]) for file in self.json["files"])
        ]
        return {"files": answers}

    def large_file_batch(self, kind, name):
        self.query["create_pr"] = "1"  # the right to commit is checked by the commit
        self.repository(kind, name, write=True)
        objects = []
        for wanted in self.json["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}", "header": {}}}
            held = wanted["oid"] in self.hub.large_files
            objects.append({**wanted, "authenticated": True, **({} if held else {"actions": upload})})
        return {"transfer": "basic", "objects": objects}

    def put_large_file(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, "sha256 mismatch")
        self.hub.large_files[oid] = self.body
        return {}

    def commit(self, kind, name, revision):
        repository = self.repository(kind, name, write=True)
        parent = self.find_commit(repository, revision)
        files, title = dict(parent.files), ""
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                title = value["summary"]
                if "create_pr" not in self.query and value.get("parentCommit", parent.sha) != parent.sha:
                    raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            elif operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.large_files[value["oid"]]
            elif operation["key"] == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
            else:
                raise Refusal(400, f"This Hub does not know the operation {operation['key']}")

        answer = {"success": True, "hookOutput": ""}
        ref = revision if revision.startswith("refs/") else f"refs/heads/{revision}"
        if "create_pr" in self.query:
            number = 1 + sum(ref.startswith("refs/pr/") for ref in repository.refs)
            ref = f"refs/pr/{number}"
            prefix = "" if kind == "models" else f"{kind}/"
            answer["pullRequestUrl"] = f"{self.hub.url}/{prefix}{name}/discussions/{number}"
        commit = repository.commit(files, title, ref)
        return answer | {"commitOid": commit.sha, "commitUrl": f"{self.hub.url}/{name}/commit/{commit.sha}"}

    def download(self, kind, name, revision, path):
        commit = self.find_commit(self.repository(kind, name, files=True), revision)
        headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
        content = commit.files.get(path)
        if content is None:
            headers |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            return {"error": "Entry not found"}, 404, headers
        headers["ETag"] = f'"{content_id(path, content)}"'
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None or self.command == "HEAD":
            return content, 200, headers
        start, end = int(span[1]), min(int(span[2] or len(content) - 1), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return content[start : end + 1], 206, headers

    def validate_yaml(self):
        try:
            metadata(self.json["content"].encode())
        except yaml.YAMLError as error:
            return {"errors": [{"message": str(error)}], "warnings": []}, 400
        return {"errors": [], "warnings": []}


def is_large(path: str, size: int) -> bool:
    return path.endswith(LFS_SUFFIXES) or size > LFS_SIZE


def content_id(path: str, content: bytes) -> str:
    """Git's name of a small file, the SHA-256 of a large one."""
    if is_large(path, len(content)):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def file_entry(path: str, content: bytes) -> dict:
    entry = {"type": "file", "path": path, "size": len(content), "oid": content_id(path, content)}
    if is_large(path, len(content)):
        entry["lfs"] = {"oid": entry["oid"], "size": len(content), "pointerSize": 128}
    return entry


def metadata(card: bytes) -> dict:
    """The YAML head of a README.md."""
    head = re.match(rb"\s*---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    return (yaml.safe_load(head[1]) or {}) if head else {}
