"""The disk cache of compiled code: what is stored comes back whole, or not at all."""

import multiprocessing
import os
import stat
import warnings

import pytest

from fnflare.compiler import cache

posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="owners and permissions are POSIX's")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "cache"
    monkeypatch.setenv("FNFLARE_CACHE_DIR", str(path))
    monkeypatch.delenv("FNFLARE_CACHE", raising=False)
    monkeypatch.delenv("FNFLARE_CACHE_BYTES", raising=False)
    monkeypatch.setattr(cache, "_warned", False)
    monkeypatch.setattr(cache, "_room", cache._Room())
    return path


def key(n):
    return cache.fingerprint("test", str(n))


def only_file(place):
    (file,) = place.iterdir()
    return file


def used(place, n, when):
    os.utime(place / f"{key(n)}.code", (when, when))


# -- keys ------------------------------------------------------------------------------------------


def test_a_fingerprint_depends_on_every_part_and_on_where_parts_end():
    parts = [("ab", "c"), ("a", "bc"), ("abc",), ("ab", "c", ""), ("c", "ab"), ("ab", "d")]
    assert len({cache.fingerprint(*p) for p in parts}) == len(parts)
    assert cache.fingerprint("ab", b"c") == cache.fingerprint(b"ab", "c")


# -- what is stored --------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(256)) * 1000])
def test_what_is_stored_is_found(place, payload):
    assert cache.lookup(key(0)) is None
    cache.store(key(0), payload)
    assert cache.lookup(key(0)) == payload
    assert cache.lookup(key(1)) is None


def test_storing_again_replaces(place):
    cache.store(key(0), b"old")
    cache.store(key(0), b"new")
    assert cache.lookup(key(0)) == b"new"
    assert len(list(place.iterdir())) == 1


def test_switched_off_nothing_is_written_or_read(place, monkeypatch):
    cache.store(key(0), b"code")
    monkeypatch.setenv("FNFLARE_CACHE", "0")
    assert cache.lookup(key(0)) is None
    cache.store(key(1), b"code")
    monkeypatch.setenv("FNFLARE_CACHE", "1")
    assert cache.lookup(key(0)) == b"code"
    assert cache.lookup(key(1)) is None


def test_the_folder_follows_the_platform(tmp_path, monkeypatch):
    monkeypatch.delenv("FNFLARE_CACHE_DIR")
    monkeypatch.setattr(cache.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "fnflare"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # such ones are to be ignored, its specification says
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.folder() == tmp_path / "home" / ".cache" / "fnflare"
    monkeypatch.setattr(cache.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache.folder() == tmp_path / "local" / "fnflare"


@posix
def test_folder_and_files_are_ours_alone(place):
    before = os.umask(0)
    try:
        cache.store(key(0), b"code")
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE(only_file(place).stat().st_mode) == 0o600


# -- damage ----------------------------------------------------------------------------------------


def _truncate(data):
    return data[:-1]


def _empty(data):
    return b""


def _flip_payload(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def _flip_digest(data):
    return data[:30] + bytes([data[30] ^ 128]) + data[31:]


def _other_version(data):
    return data[:8] + (cache._VERSION + 1).to_bytes(4, "little") + data[12:]


def _foreign(data):
    return b"\x7fELF" + data[4:]


def _longer(data):
    return data + b"\0"


@pytest.mark.parametrize(
    "damage",
    [_truncate, _empty, _flip_payload, _flip_digest, _other_version, _foreign, _longer],
    ids=lambda f: f.__name__,
)
def test_a_damaged_file_is_ignored_and_removed(place, damage):
    cache.store(key(0), b"some code")
    file = only_file(place)
    file.write_bytes(damage(file.read_bytes()))
    assert cache.lookup(key(0)) is None
    assert not file.exists()
    cache.store(key(0), b"some code")
    assert cache.lookup(key(0)) == b"some code"


def test_a_file_under_another_key_is_damaged(place):
    cache.store(key(0), b"some code")
    only_file(place).rename(place / f"{key(1)}.code")
    assert cache.lookup(key(1)) is None


# -- who may have written it -----------------------------------------------------------------------


def refused(match, n=0):
    with pytest.warns(cache.CacheWarning, match=match):
        assert cache.lookup(key(n)) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.lookup(key(n)) is None  # one warning is enough


@posix
@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_that_others_can_write_is_not_used(place, mode):
    cache.store(key(0), b"code")
    place.chmod(mode)
    refused("can be written by other users")
    cache.store(key(1), b"code")
    assert len(list(place.iterdir())) == 1


@posix
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_can_write_is_not_used(place, mode):
    cache.store(key(0), b"code")
    only_file(place).chmod(mode)
    refused("can be written by other users")


@posix
def test_what_belongs_to_another_user_is_not_used(place, monkeypatch):
    cache.store(key(0), b"code")
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    refused("belongs to another user")


@posix
def test_a_file_of_another_user_in_our_folder_is_not_used(place, monkeypatch):
    cache.store(key(0), b"code")
    true = os.fstat

    def foreign(descriptor):
        found = true(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return found
        fields = list(found)
        fields[stat.ST_UID] += 1
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", foreign)
    refused("belongs to another user")


@posix
def test_symbolic_links_are_not_followed(place, tmp_path):
    cache.store(key(0), b"code")
    file = only_file(place)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    refused("symbolic link")
    cache.store(key(0), b"new")  # takes the link's place
    assert cache.lookup(key(0)) == b"new"
    assert (tmp_path / "elsewhere").read_bytes().endswith(b"code")


@posix
def test_a_linked_folder_is_not_used(place, tmp_path, monkeypatch):
    cache.store(key(0), b"code")
    (tmp_path / "link").symlink_to(place)
    monkeypatch.setenv("FNFLARE_CACHE_DIR", str(tmp_path / "link"))
    refused("symbolic link")


@posix
def test_a_pipe_does_not_hold_up(place):
    cache.store(key(0), b"code")
    os.mkfifo(place / f"{key(1)}.code", 0o600)
    refused("no plain file", 1)


# -- systems that do not play along ----------------------------------------------------------------


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FNFLARE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    cache.store(key(0), b"code")
    assert cache.lookup(key(0)) is None


def test_a_folder_that_is_a_file_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FNFLARE_CACHE_DIR", str(tmp_path / "file"))
    cache.store(key(0), b"code")
    assert cache.lookup(key(0)) is None


def _no_space(*args, **kwargs):
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_no_error_and_leaves_nothing(place, monkeypatch):
    cache.store(key(0), b"code")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", _no_space)
        cache.store(key(1), b"code")
    assert cache.lookup(key(1)) is None
    assert len(list(place.iterdir())) == 1


def test_a_read_only_folder_still_serves(place, monkeypatch):
    cache.store(key(0), b"code")
    for name in ("utime", "unlink"):
        monkeypatch.setattr(os, name, _no_space)
    assert cache.lookup(key(0)) == b"code"


# -- room ------------------------------------------------------------------------------------------

SIZE = 8000  # two blocks with the header


def total(place):
    return sum(-(-f.stat().st_size // 4096) * 4096 for f in place.iterdir())


def test_the_one_used_least_recently_goes_first(place, monkeypatch):
    monkeypatch.setenv("FNFLARE_CACHE_BYTES", str(10 * 8192))
    for n in range(10):
        cache.store(key(n), bytes(SIZE))
        used(place, n, 1000 + n)
    assert len(list(place.iterdir())) == 10
    assert cache.lookup(key(0)) is not None  # which makes it the last used
    cache.store(key(10), bytes(SIZE))
    kept = [n for n in range(11) if (place / f"{key(n)}.code").exists()]
    assert kept == [0, 3, 4, 5, 6, 7, 8, 9, 10]


def test_the_folder_never_passes_its_limit(place, monkeypatch):
    most = 20 * 8192
    monkeypatch.setenv("FNFLARE_CACHE_BYTES", str(most))
    for n in range(60):
        cache.store(key(n), bytes(SIZE if n % 3 else 3 * SIZE))
        assert total(place) <= most
    assert total(place) >= most // 2


def test_another_process_finds_the_folder_full(place, monkeypatch):
    for n in range(30):
        cache.store(key(n), bytes(SIZE))
    monkeypatch.setenv("FNFLARE_CACHE_BYTES", str(10 * 8192))
    monkeypatch.setattr(cache, "_room", cache._Room())
    cache.store(key(30), bytes(SIZE))
    assert total(place) <= 10 * 8192
    assert cache.lookup(key(30)) is not None


def test_what_is_larger_than_the_limit_is_not_stored(place, monkeypatch):
    monkeypatch.setenv("FNFLARE_CACHE_BYTES", "65536")
    cache.store(key(0), bytes(1000))
    cache.store(key(1), bytes(65536))
    assert cache.lookup(key(1)) is None
    assert cache.lookup(key(0)) is not None


def test_what_a_dead_process_left_is_removed(place):
    cache.store(key(0), b"code")
    old, young = place / "a.1.part", place / "b.2.part"
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache._Room().keep(cache._Folder(place, None), 0)
    cache._Room().keep(cache._Folder(place, None), 4096)
    assert not old.exists()
    assert young.exists()


# -- several processes -----------------------------------------------------------------------------


def _many(worker):
    for n in range(40):
        cache.store(key(n % 8), bytes([n % 8]) * 5000)
        found = cache.lookup(key((n + worker) % 8))
        if found is not None and found != bytes([(n + worker) % 8]) * 5000:
            return False
    return True


def test_processes_store_and_find_at_once(place, monkeypatch):
    monkeypatch.setenv("FNFLARE_CACHE_BYTES", str(6 * 8192))  # so that they also remove
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert pool.map_async(_many, range(4)).get(timeout=60) == [True] * 4
    assert all(f.name.endswith(".code") for f in place.iterdir())
