"""A server on this machine, for the tests of what is downloaded."""

import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from data_utils.download_sources import Remote


class Server(ThreadingHTTPServer):
    """Serves `files` {name: bytes}; logs (name, Range header). cut: bytes after which the NEXT answer breaks off."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.log, self.cut, self.ranges, self.errors = {}, [], None, True, []

    def add(self, name: str, data: bytes) -> Remote:
        self.files[name] = data
        return Remote(f"http://127.0.0.1:{self.server_port}/{name}", len(data), hashlib.sha256(data).hexdigest())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name, wanted = self.path[1:], self.headers.get("Range")
        self.server.log.append((name, wanted))
        if self.server.errors:
            return self.send_error(self.server.errors.pop(0))
        if name not in self.server.files:
            return self.send_error(404, "Not Found")
        data, start = self.server.files[name], 0
        if wanted and self.server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        cut, self.server.cut = self.server.cut, None
        self.wfile.write(data[start:] if cut is None else data[start:start + cut])

    def log_message(self, *arguments):
        pass
