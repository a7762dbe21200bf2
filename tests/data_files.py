"""Files of MNIST and CIFAR-10 with made-up images, a server for them, and a load that stalls.

The files have the size of the real ones, because the readers accept no other.
"""

import gzip
import hashlib
import io
import os
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch

from ntklib import data
from ntklib.data import _files

ARCHIVE = "cifar-10-binary.tar.gz"
CIFAR = [f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)]
CIFAR += ["cifar-10-batches-bin/test_batch.bin"]
MNIST = {"train": 60_000, "t10k": 10_000}


def pattern(n: int, size: int, start: int) -> np.ndarray:
    """Images that all differ in a way that is easy to compute: pixel j of image i, modulo 256."""
    i, j = np.arange(n) * 7 + start, np.arange(size) * 3
    return i.astype(np.uint8)[:, None] + j.astype(np.uint8)


def cifar_batch(batch: int) -> np.ndarray:
    records = np.empty((10_000, 3073), np.uint8)
    records[:, 0] = (np.arange(10_000) + batch) % 10
    records[:, 1:] = pattern(10_000, 3072, batch)
    records[:, -1] = batch  # by its last byte an image tells its file
    return records


def mnist_labels(part: str) -> np.ndarray:
    return (np.arange(MNIST[part]) % 10).astype(np.uint8)


def mnist_images(part: str) -> np.ndarray:
    return pattern(MNIST[part], 784, 0).reshape(-1, 28, 28)


def idx(array: np.ndarray, header: tuple[int, ...] | None = None) -> bytes:
    header = header or (0x0800 + array.ndim, *array.shape)
    return np.array(header, ">i4").tobytes() + array.tobytes()


def write_all(folder: Path) -> dict[str, str]:
    """Writes both data sets and returns the SHA-256 of each file, unpacked."""
    contents = {path: cifar_batch(b).tobytes() for b, path in enumerate(CIFAR)}
    for part in MNIST:
        contents[f"mnist/{part}-images-idx3-ubyte.gz"] = idx(mnist_images(part))
        contents[f"mnist/{part}-labels-idx1-ubyte.gz"] = idx(mnist_labels(part))
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        packed = gzip.compress(content, 1) if path.endswith(".gz") else content
        (folder / path).write_bytes(packed)
    return {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}


def expecting(name: str, sha256: Mapping[str, str]) -> _files.Source:
    """What the library knows about a data set, with the hashes of the made-up files."""
    source = _files.SOURCES[name]
    return replace(source, files=[replace(f, sha256=sha256[f.path]) for f in source.files])


def offering(source: _files.Source, address: str, served: Mapping[str, bytes]) -> _files.Source:
    """The same with downloads from `address`, whose MD5 are right."""
    return replace(
        source,
        downloads={
            name: [address + name, hashlib.md5(content).hexdigest()]
            for name, content in served.items()
        },
    )


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def member(
    name: str, content: bytes = b"", type: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode = len(content), type, link, 0o644
    return info, content


def cifar_archive(folder: Path) -> bytes:
    """An archive like the authors': the folder itself, the six files, and two more."""
    batches = [member(path, (folder / path).read_bytes()) for path in CIFAR]
    return tar(
        member("cifar-10-batches-bin", type=tarfile.DIRTYPE),
        *batches[:5],
        member("cifar-10-batches-bin/batches.meta.txt", b"airplane\n"),
        member("cifar-10-batches-bin/readme.html", b"<p>"),
        batches[5],
    )


@contextmanager
def serving(files: Mapping[str, bytes], sent: Callable[[str], int] | None = None) -> Iterator[str]:
    """Serves files on this machine; `sent` says how many bytes of a file to send before a stall."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            if name not in files:
                self.send_error(404)
                return
            content = files[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if sent is None:
                self.wfile.write(content)
            else:
                self.wfile.write(content[: sent(name)])
                self.wfile.flush()
                over.wait()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = False  # so that leaving the server waits for every answer

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            over.set()
            server.shutdown()
            thread.join()


def stall(owner: object, name: str, calls: int) -> None:
    """Makes a function say so and wait for ever when it has been called `calls` times."""
    original, count = getattr(owner, name), 0

    def function(*args: object, **kwargs: object) -> object:
        nonlocal count
        count += 1
        if count > calls:
            print("stalled", flush=True)
            time.sleep(600)
        return original(*args, **kwargs)

    setattr(owner, name, function)


if __name__ == "__main__":
    folder, cache, address, md5, moment = sys.argv[1:]
    hashes = {p: hashlib.sha256(Path(folder, p).read_bytes()).hexdigest() for p in CIFAR}
    _files.SOURCES["cifar10"] = replace(
        expecting("cifar10", hashes), downloads={ARCHIVE: [address + ARCHIVE, md5]}
    )
    pooch.os_cache = lambda project: Path(cache)
    if moment == "unpack":
        stall(tarfile.TarFile, "makefile", calls=3)
    if moment == "move":
        stall(os, "replace", calls=3)
    data.load("cifar10")
