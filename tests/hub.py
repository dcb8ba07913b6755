"""A hub on this machine: as much of the Hugging Face Hub's answers as loading a model asks for."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """Serves folders under the ids in `models`; `asked` logs what was asked for."""

    def __init__(self, models: dict[str, Path]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.models, self.asked = models, []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(with_body=True)

    def do_HEAD(self):
        self.answer(with_body=False)

    def answer(self, with_body: bool) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        for name, folder in self.server.models.items():
            if self.path.split("?")[0] == f"/api/models/{name}":
                files = [{"rfilename": file.name} for file in folder.iterdir()]
                return self.give(200, json.dumps({"id": name, "sha": COMMIT, "siblings": files, "tags": []}).encode(), with_body)
            file = folder / self.path.rpartition("/")[2]
            if self.path.startswith(f"/{name}/resolve/") and file.is_file():
                return self.give(200, file.read_bytes(), with_body)
        return self.give(404, b"", with_body, {"X-Error-Code": "EntryNotFound"})

    def give(self, status: int, body: bytes, with_body: bool, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(body).hexdigest()}"', "Content-Length": str(len(body)), **(more or {})}
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@contextmanager
def serving(models: dict[str, Path]) -> Iterator[Hub]:
    """The hub, while the context lasts."""
    with Hub(models) as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
