"""Original files of public data sets, downloaded or from a directory that the user names."""

import dataclasses
import hashlib
import os
import urllib.parse
import urllib.request
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mmjax import files
from mmjax.config import trust
from mmjax.data.progress_bars import show_download_progress

_TIMEOUT = 30  # seconds without a byte
_CHUNK_BYTES = 1 << 16


class OriginalFile(NamedTuple):
    """A published file.

    Attributes:
      folder: name of the data set's folder, in the user's directory and among the downloads.
      names: possible names of the file; the first is the name of a download.
      urls: HTTPS addresses, all of the same file.
      sha256: its published checksum; empty if there is none.
    """

    folder: str
    names: tuple[str, ...]
    urls: tuple[str, ...]
    sha256: str = ""


def _describe_idx_file(folder: str, name: str, sha256: str, *sites: str) -> OriginalFile:
    urls = tuple(f"{site}/{name}.gz" for site in sites)
    return OriginalFile(folder, (f"{name}.gz", name), urls, sha256)


_MNIST_SITES = (
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
)
_FASHION_MNIST_SITES = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    "https://fashion-mnist.s3.eu-central-1.amazonaws.com",
)
# TFDS publishes the same checksums for these files.
MNIST_FILES = {
    "train-images": _describe_idx_file(
        "mnist",
        "train-images-idx3-ubyte",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        *_MNIST_SITES,
    ),
    "train-labels": _describe_idx_file(
        "mnist",
        "train-labels-idx1-ubyte",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        *_MNIST_SITES,
    ),
    "test-images": _describe_idx_file(
        "mnist",
        "t10k-images-idx3-ubyte",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        *_MNIST_SITES,
    ),
    "test-labels": _describe_idx_file(
        "mnist",
        "t10k-labels-idx1-ubyte",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        *_MNIST_SITES,
    ),
}
FASHION_MNIST_FILES = {
    "train-images": _describe_idx_file(
        "fashion-mnist",
        "train-images-idx3-ubyte",
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        *_FASHION_MNIST_SITES,
    ),
    "train-labels": _describe_idx_file(
        "fashion-mnist",
        "train-labels-idx1-ubyte",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        *_FASHION_MNIST_SITES,
    ),
    "test-images": _describe_idx_file(
        "fashion-mnist",
        "t10k-images-idx3-ubyte",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        *_FASHION_MNIST_SITES,
    ),
    "test-labels": _describe_idx_file(
        "fashion-mnist",
        "t10k-labels-idx1-ubyte",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        *_FASHION_MNIST_SITES,
    ),
}
# GitHub generates the archive on demand, so that it has no stable checksum; its reader counts the
# recordings instead.
FSDD_ARCHIVE = OriginalFile(
    "fsdd",
    ("recordings.zip", "recordings", "free-spoken-digit-dataset-1.0.10.zip"),
    ("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.zip",),
)


@dataclasses.dataclass(frozen=True)
class OriginalFiles:
    """The places of original files.

    Attributes:
      manual_dir: the user's directory, with the files in one folder per data set ("mnist",
        "fashion-mnist", "fsdd") or directly in it; None downloads them. Checksums of its files are
        not compared, so that other archives of the same content are accepted.
      download_dir: the folder of downloads.
    """

    manual_dir: Path | None
    download_dir: Path

    def find(self, original: OriginalFile) -> Path:
        """Returns the path of a file, which is downloaded if necessary and no directory is named.

        Raises:
          FileNotFoundError: if the user's directory has no such file.
          ConnectionError: if it cannot be downloaded; the message says how to do without.
          ValueError: if the downloaded file is not the published one.
        """
        if self.manual_dir is not None:
            return _find_in_directory(original, self.manual_dir)
        path = self.download_dir / original.folder / original.names[0]
        if not path.exists():
            _download_file(original, path)
        return path


def _find_in_directory(original: OriginalFile, directory: Path) -> Path:
    """Finds a file in the user's directory, but never in the folder of another data set."""
    # A directory with the name of another data set cannot hold this one's files directly.
    folders = [directory / original.folder]
    if directory.resolve().name not in {"mnist", "fashion-mnist", "fsdd"} - {original.folder}:
        folders.append(directory)
    for folder in folders:
        for name in original.names:
            if (folder / name).exists():
                return folder / name
    raise FileNotFoundError(
        f"There is no {original.folder}/{original.names[0]} in {directory}. Put the file there "
        f"from {original.urls[0]}, or leave --manual-dir (manual_dir) out to download it."
    )


def _download_file(original: OriginalFile, path: Path) -> None:
    """Downloads a file under a temporary name, and renames it once it is complete and correct."""
    trust.check_may_prepare_data(f"{original.folder}/{original.names[0]}", path.parent)
    part = path.with_name(f"{path.name}.part")
    with files.lock_file(path.with_name(f".{path.name}.lock"), f"it downloads {path.name}"):
        if path.exists():
            return
        failures = []
        for url in original.urls:
            try:
                checksum = _fetch_url(url, part)
                break
            except OSError as error:
                failures.append(f"{url}: {getattr(error, 'reason', None) or error}")
        else:
            raise ConnectionError(_format_failures(original, failures))
        if original.sha256 not in ("", checksum):
            part.unlink()
            raise ValueError(
                f"{url} is not the published file: its SHA-256 is {checksum}, but should be "
                f"{original.sha256}. {_format_manual_steps(original)}"
            )
        os.replace(part, path)


class _HttpsRedirectHandler(urllib.request.HTTPRedirectHandler):
    """A handler of redirects that follows them to HTTPS only."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, url: str
    ) -> Any:
        _check_https(url)
        return super().redirect_request(req, fp, code, msg, headers, url)


def _check_https(url: str) -> None:
    """Refuses local files, plain HTTP and any other scheme than HTTPS.

    Raises:
      ConnectionError: naming the address.
    """
    if urllib.parse.urlsplit(url).scheme != "https":
        raise ConnectionError(f"{url[:200]} is refused, since files are downloaded by HTTPS only")


def _make_https_opener() -> urllib.request.OpenerDirector:
    """Makes an opener of HTTPS addresses, which has no handler of other schemes."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _HttpsRedirectHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _fetch_url(url: str, part: Path) -> str:
    """Downloads an address to the file `part` and returns its SHA-256."""
    _check_https(url)
    with _make_https_opener().open(url, timeout=_TIMEOUT) as response, part.open("wb") as file:
        length = response.headers.get("Content-Length")
        return _copy_response(response, file, int(length) if length else None, part.stem)


def _copy_response(response: HTTPResponse, file: BinaryIO, total: int | None, name: str) -> str:
    """Copies a response to a file and returns its SHA-256."""
    checksum, size = hashlib.sha256(), 0
    with show_download_progress(f"Downloading {name}", total) as advance:
        while chunk := response.read(_CHUNK_BYTES):
            file.write(chunk)
            checksum.update(chunk)
            size += len(chunk)
            advance(len(chunk))
    if total is not None and size != total:
        raise ConnectionError(f"the connection ended after {size} of {total} bytes")
    return checksum.hexdigest()


def _format_failures(original: OriginalFile, failures: list[str]) -> str:
    name = f"{original.folder}/{original.names[0]}"
    return (
        f"{name} could not be downloaded ({'; '.join(failures)}). {_format_manual_steps(original)}"
    )


def _format_manual_steps(original: OriginalFile) -> str:
    return (
        f"Without a network, put a copy at DIR/{original.folder}/{original.names[0]} and pass DIR "
        "by --manual-dir (manual_dir)."
    )
