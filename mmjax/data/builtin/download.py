"""Original files of public data sets, from a directory that the user names or downloaded."""

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
from mmjax.data.progress_bars import downloaded

TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 16


class Original(NamedTuple):
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


def _idx(folder: str, name: str, sha256: str, *sites: str) -> Original:
    urls = tuple(f"{site}/{name}.gz" for site in sites)
    return Original(folder, (f"{name}.gz", name), urls, sha256)


_MNIST = (
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
)
_FASHION = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    "https://fashion-mnist.s3.eu-central-1.amazonaws.com",
)
# TFDS publishes the same checksums for these files.
MNIST = {
    "train-images": _idx(
        "mnist",
        "train-images-idx3-ubyte",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        *_MNIST,
    ),
    "train-labels": _idx(
        "mnist",
        "train-labels-idx1-ubyte",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        *_MNIST,
    ),
    "test-images": _idx(
        "mnist",
        "t10k-images-idx3-ubyte",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        *_MNIST,
    ),
    "test-labels": _idx(
        "mnist",
        "t10k-labels-idx1-ubyte",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        *_MNIST,
    ),
}
FASHION_MNIST = {
    "train-images": _idx(
        "fashion-mnist",
        "train-images-idx3-ubyte",
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        *_FASHION,
    ),
    "train-labels": _idx(
        "fashion-mnist",
        "train-labels-idx1-ubyte",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        *_FASHION,
    ),
    "test-images": _idx(
        "fashion-mnist",
        "t10k-images-idx3-ubyte",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        *_FASHION,
    ),
    "test-labels": _idx(
        "fashion-mnist",
        "t10k-labels-idx1-ubyte",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        *_FASHION,
    ),
}
# GitHub generates the archive on demand, so that it has no stable checksum; its reader counts the
# recordings instead.
FSDD = Original(
    "fsdd",
    ("recordings.zip", "recordings", "free-spoken-digit-dataset-1.0.10.zip"),
    ("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.zip",),
)


@dataclasses.dataclass(frozen=True)
class Originals:
    """The places of original files.

    Attributes:
      manual_dir: the user's directory, with the files in one folder per data set ("mnist",
        "fashion-mnist", "fsdd") or directly in it; None downloads them. Checksums of its files are
        not compared, so that other archives of the same content are accepted.
      download_dir: the folder of downloads.
    """

    manual_dir: Path | None
    download_dir: Path

    def find(self, original: Original) -> Path:
        """Returns the path of a file, which is downloaded if necessary and no directory is named.

        Raises:
          FileNotFoundError: if the user's directory has no such file.
          ConnectionError: if it cannot be downloaded; the message says how to do without.
          ValueError: if the downloaded file is not the published one.
        """
        if self.manual_dir is not None:
            return _in_directory(original, self.manual_dir)
        path = self.download_dir / original.folder / original.names[0]
        if not path.exists():
            _download(original, path)
        return path


def _in_directory(original: Original, directory: Path) -> Path:
    """Finds a file in the user's directory, but never in the folder of another data set."""
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


def _download(original: Original, path: Path) -> None:
    """Downloads a file under a temporary name, and renames it once it is complete and correct."""
    trust.check_may_write(f"{original.folder}/{original.names[0]}", path.parent)
    part = path.with_name(f"{path.name}.part")
    with files.lock(path.with_name(f".{path.name}.lock"), f"it downloads {path.name}"):
        if path.exists():
            return
        failures = []
        for url in original.urls:
            try:
                checksum = _fetch(url, part)
                break
            except OSError as error:
                failures.append(f"{url}: {getattr(error, 'reason', None) or error}")
        else:
            raise ConnectionError(_offline(original, failures))
        if original.sha256 not in ("", checksum):
            part.unlink()
            raise ValueError(
                f"{url} is not the published file: its SHA-256 is {checksum}, but should be "
                f"{original.sha256}. {_mend(original)}"
            )
        os.replace(part, path)


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """A handler of redirects that follows them to HTTPS only."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, url: str
    ) -> Any:
        _check_address(url)
        return super().redirect_request(req, fp, code, msg, headers, url)


def _check_address(url: str) -> None:
    """Refuses local files, plain HTTP and any other scheme than HTTPS.

    Raises:
      ConnectionError: naming the address.
    """
    if urllib.parse.urlsplit(url).scheme != "https":
        raise ConnectionError(f"{url[:200]} is refused, since files are downloaded by HTTPS only")


def _opener() -> urllib.request.OpenerDirector:
    """Makes an opener of HTTPS addresses, which has no handler of other schemes."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _SecureRedirects(),
    ):
        opener.add_handler(handler)
    return opener


def _fetch(url: str, part: Path) -> str:
    """Downloads an address to the file `part` and returns its SHA-256."""
    _check_address(url)
    with _opener().open(url, timeout=TIMEOUT) as response, part.open("wb") as file:
        length = response.headers.get("Content-Length")
        return _copy(response, file, int(length) if length else None, part.stem)


def _copy(response: HTTPResponse, file: BinaryIO, total: int | None, name: str) -> str:
    """Copies a response to a file and returns its SHA-256."""
    checksum, size = hashlib.sha256(), 0
    with downloaded(f"Downloading {name}", total) as advance:
        while chunk := response.read(CHUNK):
            file.write(chunk)
            checksum.update(chunk)
            size += len(chunk)
            advance(len(chunk))
    if total is not None and size != total:
        raise ConnectionError(f"the connection ended after {size} of {total} bytes")
    return checksum.hexdigest()


def _offline(original: Original, failures: list[str]) -> str:
    name = f"{original.folder}/{original.names[0]}"
    return f"{name} could not be downloaded ({'; '.join(failures)}). {_mend(original)}"


def _mend(original: Original) -> str:
    return (
        f"Without a network, put a copy at DIR/{original.folder}/{original.names[0]} and pass DIR "
        "by --manual-dir (manual_dir)."
    )
