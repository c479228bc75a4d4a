"""Original files of public data sets: from a directory that the user names, or downloaded."""

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
    """A file that somebody published.

    Attributes:
      folder: the data set's folder, in the user's directory and among the downloads.
      names: what the file may be called; the first is the name of a download.
      urls: where it is published, by HTTPS; all hold the same file.
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
# The checksums are those that TFDS publishes for the same files.
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
# GitHub makes the archive on demand and promises no checksum; its reader counts the recordings.
FSDD = Original(
    "fsdd",
    ("recordings.zip", "recordings", "free-spoken-digit-dataset-1.0.10.zip"),
    ("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.zip",),
)


@dataclasses.dataclass(frozen=True)
class Originals:
    """Where original files come from.

    Attributes:
      manual_dir: the user's directory, with the files in a folder for each data set ("mnist",
        "fashion-mnist", "fsdd") or lying directly in it; None is to download them. Its files are
        not compared with checksums: other archives of the same content are welcome.
      download_dir: where downloads are kept.
    """

    manual_dir: Path | None
    download_dir: Path

    def find(self, original: Original) -> Path:
        """The file, downloaded if it is not there yet and no directory is named.

        Raises:
          FileNotFoundError: if the user's directory has no such file.
          ConnectionError: if it cannot be downloaded, with what to do about it.
          ValueError: if what was downloaded is not the published file.
        """
        if self.manual_dir is not None:
            return _in_directory(original, self.manual_dir)
        path = self.download_dir / original.folder / original.names[0]
        if not path.exists():
            _download(original, path)
        return path


def _in_directory(original: Original, directory: Path) -> Path:
    """Files that lie directly in another data set's folder are not taken for this one's."""
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
    """Downloads into another name and renames when all is there and right."""
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
                f"{url} is not the published file: its SHA-256 is {checksum}, which should be "
                f"{original.sha256}. {_mend(original)}"
            )
        os.replace(part, path)


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to HTTPS only."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, url: str
    ) -> Any:
        _check_address(url)
        return super().redirect_request(req, fp, code, msg, headers, url)


def _check_address(url: str) -> None:
    """Refuses addresses of files, of plain HTTP and of the like.

    Raises:
      ConnectionError: naming the address.
    """
    if urllib.parse.urlsplit(url).scheme != "https":
        raise ConnectionError(f"{url[:200]} is refused, since files are downloaded by HTTPS only")


def _opener() -> urllib.request.OpenerDirector:
    """Opens addresses by HTTPS and in no other way."""
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
    """Writes what is at the address to `part`; returns its SHA-256."""
    _check_address(url)
    with _opener().open(url, timeout=TIMEOUT) as response, part.open("wb") as file:
        length = response.headers.get("Content-Length")
        return _copy(response, file, int(length) if length else None, part.stem)


def _copy(response: HTTPResponse, file: BinaryIO, total: int | None, name: str) -> str:
    checksum, size = hashlib.sha256(), 0
    with downloaded(f"Downloading {name}", total) as advance:
        while chunk := response.read(CHUNK):
            file.write(chunk)
            checksum.update(chunk)
            size += len(chunk)
            advance(len(chunk))
    if total is not None and size != total:
        raise ConnectionError(f"the connection broke after {size} of {total} bytes")
    return checksum.hexdigest()


def _offline(original: Original, failures: list[str]) -> str:
    name = f"{original.folder}/{original.names[0]}"
    return f"{name} could not be downloaded ({'; '.join(failures)}). {_mend(original)}"


def _mend(original: Original) -> str:
    return (
        f"Without a network, fetch it elsewhere as DIR/{original.folder}/{original.names[0]} and "
        "name DIR by --manual-dir (manual_dir)."
    )
