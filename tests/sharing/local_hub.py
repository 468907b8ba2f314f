"""A Hub on the loopback interface, in memory: what huggingface_hub, transformers and datasets ask of the real one.

    with LocalHub() as hub:
        api = HfApi(endpoint=hub.url, token="hf_alice")

The tokens `hf_alice` and `hf_bob` belong to the users alice and bob. Weights and tables go up by basic Git LFS, so
clients must set `HF_HUB_DISABLE_XET=1`. `hub.fail(...)` breaks requests to come.
"""

from http.server import ThreadingHTTPServer
from threading import Lock, Thread

from huggingface_hub import constants, hf_api

from local_hub_api import Failure, HubHandler, Repository


class LocalHub:
    """The server and what it holds: `repositories` by (kind, name), for example `("models", "alice/hear")`."""

    def __init__(self, port: int = 0):
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.failures: list[Failure] = []
        self.requests: list[str] = []
        self.lock = Lock()
        handler = type("Handler", (HubHandler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.server.server_close()

    def clear(self) -> None:
        """Forgets everything but its address."""
        for held in (self.repositories, self.large_files, self.failures, self.requests):
            held.clear()

    def create(self, name: str, kind: str = "models", files: dict[str, bytes] | None = None, **settings) -> Repository:
        repository = self.repositories[kind, name] = Repository(**{"private": False} | settings)
        repository.commit({".gitattributes": b"*.safetensors filter=lfs\n", **(files or {})}, "initial commit")
        return repository

    def fail(
        self,
        request: str,
        status: int | None = None,
        message: str = "",
        code: str | None = None,
        at: int = 1,
        times: int = 1000,
        after_the_deed: bool = False,
    ) -> None:
        """
        Breaks requests to come.

        Args:
            request (`str`): A regular expression of `METHOD /path`.
            status (`int`, *optional*): The HTTP status to refuse with; without it the connection is dropped.
            message (`str`, *optional*): The reason that the server states.
            code (`str`, *optional*): Its `X-Error-Code`.
            at (`int`, *optional*, defaults to 1): The first matching request to break.
            times (`int`, *optional*, defaults to 1000): How many to break.
            after_the_deed (`bool`, *optional*, defaults to `False`): Whether the request is obeyed before it breaks.
        """
        self.failures.append(Failure(request, status, message, code, at, times, after_the_deed))


def connect(hub: LocalHub, monkeypatch, home, token: str | None = "hf_alice") -> None:
    """Points this process, which has long imported huggingface_hub, and its children at the server."""
    settings = {"ENDPOINT": hub.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv(name if name.startswith("HF_") else f"HF_{name}", str(value))
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(hf_api.api, "endpoint", hub.url)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)  # newer versions keep one there
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between two tries of huggingface_hub
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    if token is None:
        monkeypatch.delenv("HF_TOKEN", raising=False)
    else:
        monkeypatch.setenv("HF_TOKEN", token)


if __name__ == "__main__":
    import sys

    hub = LocalHub(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(f"HF_ENDPOINT={hub.url} HF_HUB_DISABLE_XET=1 HF_TOKEN=hf_alice", flush=True)
    hub.server.serve_forever()
