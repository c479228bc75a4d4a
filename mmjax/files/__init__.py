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
    can_write_files,
    compute_sha256,
    name_file_in_errors,
    read_bytes,
    read_text,
    replace_atomically,
    write_bytes,
    write_text,
)
from mmjax.files.checked_json import CHECKSUM_KEY, check_and_drop_checksums, read_json, write_json
from mmjax.files.damage import DAMAGE_ERRORS, DamagedFileError, name_damaged_file, set_aside_damaged
from mmjax.files.json_log import JsonLog, format_log_line, read_log
from mmjax.files.locks import (
    LOCK_HOLDER_NAME,
    LockedError,
    is_lock_file,
    is_unused_directory,
    lock_directory,
    lock_file,
)

__all__ = [
    "CHECKSUM_KEY",
    "DAMAGE_ERRORS",
    "LOCK_HOLDER_NAME",
    "DamagedFileError",
    "JsonLog",
    "LockedError",
    "append_line",
    "can_write_files",
    "check_and_drop_checksums",
    "compute_sha256",
    "format_log_line",
    "is_lock_file",
    "is_unused_directory",
    "lock_directory",
    "lock_file",
    "name_damaged_file",
    "name_file_in_errors",
    "read_bytes",
    "read_json",
    "read_log",
    "read_text",
    "replace_atomically",
    "set_aside_damaged",
    "write_bytes",
    "write_json",
    "write_text",
]
