"""Opens places in buckets, gs:// and s3://, and says why one cannot be used.

The library of a scheme is an extra of this package and is imported when it is needed.
Each mistake is one line and comes in seconds; the libraries alone try for minutes.
"""

import importlib.util
import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from attunet_jax.errors import BadArguments, BadData, one_line
from attunet_jax.files import is_url as is_url  # here for all that use this module

# Scheme -> package that reads and writes it, extra that installs it.
LIBRARIES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}
SCHEMES = tuple(LIBRARIES)
# How long the first answer of a bucket may take.
ANSWER_S = 10.0
_FORM = re.compile(r"([a-z0-9]+)://([A-Za-z0-9][A-Za-z0-9._-]{2,221})(/[^\x00-\x1f]*)?")
# Variables from which the libraries take addresses and credentials.
_SETTINGS = ("AWS_", "GOOGLE_", "CLOUDSDK_", "STORAGE_EMULATOR_HOST")
_CREDENTIALS = {
    "gs": "run 'gcloud auth application-default login', or set "
    "GOOGLE_APPLICATION_CREDENTIALS to a key file",
    "s3": "run 'aws configure', or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}


def check_url(url: str, schemes: tuple[str, ...] = SCHEMES) -> None:
    """Raises `BadArguments` for a URL that cannot be one here; asks no network.

    `schemes` are those that this place may have.
    """
    forms = " or ".join(f"{scheme}://BUCKET/..." for scheme in schemes)
    scheme = url.partition(":")[0]
    match = _FORM.fullmatch(url)
    if scheme not in schemes or not match:
        raise BadArguments(
            f"{url}: must be a path of this machine or {forms} (another store can be "
            "mounted as a folder)"
        )
    inner = (match[3] or "").removeprefix("/").removesuffix("/")
    if inner and {"", ".", ".."} & set(inner.split("/")):
        raise BadArguments(f"{url}: has an empty part, '.' or '..' in it")
    package, extra = LIBRARIES[scheme]
    if importlib.util.find_spec(package) is None:
        raise BadArguments(
            f"{url}: needs the package {package}: pip install -e '.[{extra}]'"
        )


def problem_of(url: str, schemes: tuple[str, ...] = SCHEMES) -> str | None:
    """Says why a URL cannot be one here; None where it can."""
    try:
        check_url(url, schemes)
    except BadArguments as error:
        return str(error)
    return None


def within(url: str) -> str:
    """Returns BUCKET/PATH, as the libraries call it."""
    return url.partition("://")[2].strip("/")


def filesystem(url: str) -> Any:
    """Returns the fsspec file system of a URL's scheme.

    It keeps no listings. Raises `BadArguments` for a URL that cannot be read or written
    here, `BadData` where the library finds no credentials.
    """
    check_url(url)
    with answering(url):
        settings = tuple(i for i in os.environ.items() if i[0].startswith(_SETTINGS))
        return _google(settings) if url.startswith("gs:") else _amazon(settings)


def check_readable(url: str) -> None:
    """Raises `BadData`, within seconds, where there is nothing that can be read."""
    listing(filesystem(url), url)


def check_writable(place: str | os.PathLike) -> None:
    """Raises `BadData`, within seconds, where a URL takes nothing; of a path nothing.

    Writes a small object of a random name below the URL and removes it.
    """
    if not is_url(place):
        return
    fs = filesystem(url := str(place))
    name = f"{within(url)}/.writable-{secrets.token_hex(8)}"
    with answering(url, "written"):
        _within_seconds(fs, fs._pipe_file, name, b"")
        _within_seconds(fs, fs._rm_file, name)


def listing(fs: Any, url: str) -> list[dict[str, Any]]:
    """Returns what is right below a URL; for an object, that alone.

    Each is a dict of fsspec: name, size, type. Raises `BadData` where there is nothing.
    """
    path = within(url)
    with answering(url):
        try:
            found = _within_seconds(fs, fs._ls, path, detail=True)
        except FileNotFoundError:
            found = []
        # The object that marks an empty folder is no file.
        found = [row for row in found if row["name"].strip("/") != path or row["size"]]
    if not found:
        raise BadData(f"{url}: {_missing(fs, path)}")
    return found


@contextmanager
def answering(url: str, done: str = "read") -> Iterator[None]:
    """Turns what the libraries raise within into a `BadData` of one line."""
    try:
        yield
    except (BadArguments, BadData):
        raise
    except Exception as error:  # each library has exceptions of its own
        raise BadData(f"{url}: {_reason(url, error, done)}") from error


def is_final(error: BaseException) -> bool:
    """Whether the same request would fail again: nothing there, or not allowed."""
    if isinstance(error, BadArguments | BadData | FileNotFoundError | PermissionError):
        return True
    return _is_refused(error) or _are_missing(error)


@lru_cache(maxsize=4)
def _google(settings: tuple) -> Any:
    # Asked for its kind, each bucket would be waited for through another service.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import gcsfs
    import google.auth.exceptions

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # what it logs it raises too
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return gcsfs.GCSFileSystem(token="anon", **options)
    try:
        return gcsfs.GCSFileSystem(token="google_default", **options)
    except google.auth.exceptions.DefaultCredentialsError:
        return gcsfs.GCSFileSystem(token="anon", **options)  # a bucket may be public


@lru_cache(maxsize=4)
def _amazon(settings: tuple) -> Any:
    import s3fs

    retries = {"max_attempts": 3, "mode": "standard"}
    return s3fs.S3FileSystem(
        use_listings_cache=False,
        skip_instance_cache=True,
        config_kwargs={"connect_timeout": 3, "read_timeout": 30, "retries": retries},
    )


def _within_seconds(fs: Any, call: Any, *arguments: Any, **options: Any) -> Any:
    """Calls a coroutine of a file system; the library's own retries end with it."""
    import fsspec.asyn

    return fsspec.asyn.sync(fs.loop, call, *arguments, timeout=ANSWER_S, **options)


def _missing(fs: Any, path: str) -> str:
    bucket = path.partition("/")[0]
    try:
        _within_seconds(fs, fs._ls, bucket)
    except FileNotFoundError:
        return f"there is no bucket {bucket}"
    except Exception:  # a key may allow one folder of a bucket
        pass
    return "there is nothing of this name in the bucket"


def _reason(url: str, error: Exception, done: str) -> str:
    scheme, said = url.partition(":")[0], one_line(error)[:200]
    kind = type(error).__name__
    if isinstance(error, FileNotFoundError):
        return f"there is no bucket {within(url).partition('/')[0]}"
    if _are_missing(error):
        return f"no credentials for it: {_CREDENTIALS[scheme]}"
    if isinstance(error, PermissionError) or _is_refused(error):
        return f"may not be {done} with these credentials ({said})"
    if "Timeout" in kind:
        return f"no answer in {ANSWER_S:.0f} s; is the network there?"
    return f"cannot be {done} ({said})"


def _are_missing(error: BaseException) -> bool:
    """Whether there are no credentials, or none that are still good."""
    if re.search("Credential|Refresh|Reauth|SSOToken", type(error).__name__):
        return True
    return getattr(error, "code", None) in (401, "401")


def _is_refused(error: BaseException) -> bool:
    if getattr(error, "code", None) in (401, 403, "401", "403"):
        return True
    return isinstance(error, OSError) and str(error).startswith("Forbidden")
