import dataclasses
import functools
import hashlib
import http.server
import shutil
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from mmjax.data.builtin.originals.download import (
    FASHION_MNIST_FILES,
    FSDD_ARCHIVE,
    MNIST_FILES,
    OriginalFile,
    OriginalFiles,
)

CONTENT = bytes(range(256)) * 4000


class Site(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; /broken/ ends before it says it does, /to/ADDRESS redirects there."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if not self.path.startswith("/broken/"):
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:100_000])

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of this machine with its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    path = tmp_path_factory.mktemp("certificate") / "localhost.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", path, "-out", path.with_suffix(".crt")]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


@pytest.fixture
def site(tmp_path, certificate, monkeypatch):
    """A server by HTTPS whose certificate is trusted."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "digits.gz").write_bytes(CONTENT)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    handler = functools.partial(Site, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def address(site, path="digits.gz"):
    return f"https://127.0.0.1:{site.server_address[1]}/{path}"


SHA256 = hashlib.sha256(CONTENT).hexdigest()


def original(*urls, sha256=SHA256):
    return OriginalFile("mnist", ("digits.gz", "digits"), urls, sha256)


def files(folder):
    """All files but the locks."""
    return [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_a_file_is_downloaded_once_and_kept_where_a_manual_directory_would_have_it(site, tmp_path):
    originals = OriginalFiles(None, tmp_path / "downloads")
    wanted = original(address(site))
    for _ in range(2):
        path = originals.find(wanted)
        assert path == tmp_path / "downloads" / "mnist" / "digits.gz"
        assert path.read_bytes() == CONTENT
    assert len(site.asked) == 1
    assert files(tmp_path / "downloads") == [path]
    assert OriginalFiles(tmp_path / "downloads", tmp_path / "other").find(wanted) == path


def test_many_at_once_get_one_whole_file(site, tmp_path):
    originals, found = OriginalFiles(None, tmp_path / "downloads"), []

    def find():
        found.append(originals.find(original(address(site))).read_bytes())

    threads = [threading.Thread(target=find) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 4 and len(site.asked) == 1


def test_another_address_is_tried_when_the_first_fails(site, tmp_path):
    wanted = original(address(site, "gone.gz"), address(site, "broken/x"), address(site))
    path = OriginalFiles(None, tmp_path / "downloads").find(wanted)
    assert path.read_bytes() == CONTENT and len(site.asked) == 3


def test_another_file_than_the_published_one_is_refused_and_not_kept(site, tmp_path):
    wanted = original(address(site), sha256="0" * 64)
    with pytest.raises(ValueError, match=r"digits\.gz is not the published file.*SHA-256.*000"):
        OriginalFiles(None, tmp_path / "downloads").find(wanted)
    assert not files(tmp_path / "downloads")


def test_a_file_without_a_published_checksum_is_taken(site, tmp_path):
    path = OriginalFiles(None, tmp_path / "downloads").find(original(address(site), sha256=""))
    assert path.read_bytes() == CONTENT


def test_a_broken_connection_leaves_nothing_that_would_be_read(site, tmp_path):
    originals = OriginalFiles(None, tmp_path / "downloads")
    with pytest.raises(ConnectionError, match=r"broken.*ended after 100000 of 1024000 bytes"):
        originals.find(original(address(site, "broken/x")))
    assert not (tmp_path / "downloads" / "mnist" / "digits.gz").exists()
    assert originals.find(original(address(site))).read_bytes() == CONTENT


def test_only_https_is_followed(site, tmp_path):
    """Neither an address nor a redirect leads to a file, to data or to plain HTTP."""
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    for other in (f"file://{secret}", "data:,x", "http://127.0.0.1:9/x", "ftp://127.0.0.1/x"):
        for url in (other, address(site, f"to/{other}")):
            with pytest.raises(ConnectionError, match=r"by HTTPS only|is not allowed"):
                OriginalFiles(None, tmp_path / "downloads").find(original(url, sha256=""))
    assert not [p for p in files(tmp_path / "downloads") if p.read_bytes()]
    redirected = address(site, f"to/{address(site)}")
    path = OriginalFiles(None, tmp_path / "downloads").find(original(redirected))
    assert path.read_bytes() == CONTENT


def test_a_certificate_that_nobody_vouches_for_is_refused(site, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ConnectionError, match="certificate"):
        OriginalFiles(None, tmp_path / "downloads").find(original(address(site)))


def test_offline_the_error_names_file_address_and_mend(site, tmp_path):
    wanted = original("https://127.0.0.1:9/digits.gz")
    with pytest.raises(ConnectionError) as error:
        OriginalFiles(None, tmp_path).find(wanted)
    for part in ("mnist/digits.gz", "https://127.0.0.1:9/digits.gz", "--manual-dir", "refused"):
        assert part in str(error.value)


@pytest.mark.parametrize("place", ["mnist/digits.gz", "mnist/digits", "digits.gz", "digits"])
def test_a_manual_directory_has_it_in_a_folder_or_directly_zipped_or_plain(tmp_path, place):
    path = tmp_path / "mine" / place
    path.parent.mkdir(parents=True)
    path.write_bytes(b"anything")
    originals = OriginalFiles(tmp_path / "mine", tmp_path / "downloads")
    assert originals.find(original("https://127.0.0.1:9/x")) == path


def test_a_manual_directory_that_lacks_it_is_told_what_to_put_where(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        OriginalFiles(tmp_path, tmp_path).find(original("https://127.0.0.1:9/digits.gz"))
    for part in ("mnist/digits.gz", str(tmp_path), "https://127.0.0.1:9/digits.gz", "--manual-dir"):
        assert part in str(error.value)


def test_the_folder_of_another_data_set_is_not_taken_for_this_ones(tmp_path):
    wanted = MNIST_FILES["train-images"]
    (tmp_path / "fashion-mnist").mkdir()
    (tmp_path / "fashion-mnist" / wanted.names[0]).write_bytes(b"")
    with pytest.raises(FileNotFoundError):
        OriginalFiles(tmp_path / "fashion-mnist", tmp_path).find(wanted)
    found = OriginalFiles(tmp_path / "fashion-mnist", tmp_path).find(
        FASHION_MNIST_FILES["train-images"]
    )
    assert found.name == "train-images-idx3-ubyte.gz"


def test_the_published_files():
    published = [*MNIST_FILES.values(), *FASHION_MNIST_FILES.values(), FSDD_ARCHIVE]
    assert len({(o.folder, o.names[0]) for o in published}) == 9
    for one in published:
        assert all(url.startswith("https://") for url in one.urls)
        assert one.sha256 == "" or len(bytes.fromhex(one.sha256)) == 32
        assert one is FSDD_ARCHIVE or all(Path(url).name == one.names[0] for url in one.urls)
    with pytest.raises(dataclasses.FrozenInstanceError):
        OriginalFiles(None, Path()).manual_dir = Path()
