"""Files that survive kills and reveal damage: atomic writes, checksums and locks.

Every file that mmjax writes for itself goes through this package.

- `write_text`, `write_json` and `replace_atomically` write beside the file and rename, so that a
  reader never sees half a file, and a kill leaves the old one.
- A JSON object carries the SHA-256 of the rest of it under the key "sha256", and each object of a
  JSON list its own. A line of a JSON-lines log carries the CRC-32 of the rest of it as its last
  key, "crc32". Readers check and drop these keys. Files without checksums are read as they are.
- `lock_file` is a lock of the operating system, which ends with its holder, however that ends.
"""

from mmjax.files.atomic_writes import (
    append_line,
    checksum_file,
    is_writable,
    naming_file,
    read_bytes,
    read_text,
    replacing,
    write_bytes,
    write_text,
)
from mmjax.files.checked_json import SEAL, read_json, unseal, write_json
from mmjax.files.damage import DAMAGE, DamagedFileError, naming_damage, set_aside
from mmjax.files.json_log import Log, log_line, read_log
from mmjax.files.locks import (
    LOCK_HOLDER,
    LockedError,
    is_free,
    is_lock_file,
    lock,
    lock_directory,
)

__all__ = [
    "DAMAGE",
    "LOCK_HOLDER",
    "SEAL",
    "DamagedFileError",
    "LockedError",
    "Log",
    "append_line",
    "checksum_file",
    "is_free",
    "is_lock_file",
    "is_writable",
    "lock",
    "lock_directory",
    "log_line",
    "naming_damage",
    "naming_file",
    "read_bytes",
    "read_json",
    "read_log",
    "read_text",
    "replacing",
    "set_aside",
    "unseal",
    "write_bytes",
    "write_json",
    "write_text",
]
