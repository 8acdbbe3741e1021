"""The SRTP tests turn red when a safeguard is taken out: each mutant is built and must be found by named tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import relaycore
from relaycore.srtp import DEBUG_TWIN

# A compiler run for each.
pytestmark = pytest.mark.matrix

ROOT = Path(__file__).parents[3]
CORE = ROOT / "ext/relaycore"
HERE = Path(__file__).parent

# name: (file, what stands there, what the mutant puts there, tests that must notice)
MUTANTS = {
    "GCM tags are not compared": (
        "cipher.pyx",
        "if CRYPTO_memcmp(computed, tag, AEAD_TAG_BYTES) == 0:",
        "if True:",
        "tampering or changed_bit",
    ),
    "unverified bytes stay in the buffer": (
        "cipher.pyx",
        "memset(dst, 0, <size_t>n)\n    return E_AUTH",
        "pass\n    return E_AUTH",
        "changed_bit",
    ),
    "HMAC tags are not compared": (
        "srtp.pyx",
        "if not equal_bytes(digest, tag, CM_TAG_BYTES):",
        "if False:",
        "tampering",
    ),
    "the rollover count is not authenticated": (
        "srtp.pyx",
        "put_u32(packet + body_bytes, <uint32_t>((index >> 16) & 0xffffffffu))",
        "put_u32(packet + body_bytes, 0)",
        "libsrtp",
    ),
    "replays pass": (
        "srtpindex.pxd",
        "if was_seen(window, index):",
        "if False:",
        "accepted_once or forgets or reused or protected_once",
    ),
    "the window is one packet too long": (
        "srtpindex.pxd",
        "if highest - index >= INDEX_WINDOW:",
        "if highest - index > INDEX_WINDOW:",
        "too_old or protected_once or aborts",
    ),
    "the window keeps what it passed": (
        "srtpindex.pxd",
        "window[(i & WINDOW_MASK) >> 6] = 0\n",
        "pass\n",
        "forgets",
    ),
    "an index is marked before its packet is authentic": (
        "srtp.pyx",
        "    if is_gcm:\n        code = _open_gcm(",
        "    mark_index(&state.started, &state.highest, state.window, guess)\n    if is_gcm:\n        code = _open_gcm(",
        "no_trace",
    ),
    "an index may be protected twice": (
        "srtp.pyx",
        "return _refuse_index(index)",
        "pass",
        "protected_once or aborts",
    ),
    "RTCP senders share one replay window": (
        "srtp.pyx",
        "    place = _find_source(ctx, ssrc)\n",
        "    place = 0 if ctx.source_count else -1\n",
        "counted_apart",
    ),
    "keys lie in core files": ("keymem.pyx", "    madvise(memory, CHUNK_BYTES, MADV_DONTDUMP)\n", "", "no_dump"),
    "what was a key stays in memory": ("keymem.pyx", "    explicit_bzero(p, bytes)\n", "", "wiped"),
    "schedules lie where all else does": (
        "cipher.pyx",
        "k.expanded = keymem_new(relay_gcm_key_bytes())",
        "k.expanded = aligned_alloc(64, (relay_gcm_key_bytes() + 63u) & ~<size_t>63)",
        "no_dump",
    ),
    "an HMAC's key lies where all else does": (
        "cipher.pyx",
        "<HmacKey*>keymem_new(sizeof(HmacKey))",
        "<HmacKey*>aligned_alloc(64, 192)",
        "no_dump",
    ),
}


# For mutants that take memory from elsewhere.
ALLOC = 'cdef extern from "<stdlib.h>" nogil:\n    void* aligned_alloc(size_t a, size_t n)\n'


def build_copy(folder, file, replace):
    """Copy the sources and the built modules, change one file, build its module in place; return the import path."""
    module = file.removesuffix(".pyx") if file in ("cipher.pyx", "keymem.pyx") else "srtp"
    core = folder / "ext/relaycore"
    shutil.copytree(CORE, core, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for built in Path(relaycore.__file__).parent.glob("*.so"):
        if built.name.split(".")[0] in ("srtp", "cipher", "keymem", "errs"):
            shutil.copy(built, core)
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    source = core / file
    source.write_text(replace(source.read_text()))
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=folder,
        env=os.environ | {"VEIL_MODULES": module, "RELAY_DEBUG": str(int(DEBUG_TWIN)), "RELAY_WERROR": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "ext"


def run_tests(path, select):
    """Return (exit code, output) of the SRTP tests over another build."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-o", f"pythonpath={path} .", "-k", select]
        + [str(HERE / f"test_{name}.py") for name in ("srtp", "cipher", "keymem")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
def test_the_unchanged_copy_is_green(tmp_path):
    code, output = run_tests(build_copy(tmp_path, "srtp.pyx", lambda text: text), "srtp or cipher")
    assert code == 0, output


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_found(name, tmp_path):
    file, old, new, select = MUTANTS[name]

    def mutate(text):
        assert old in text, "the mutant no longer fits the source"
        text = text.replace(old, new, 1)
        return text.replace("cdef extern", ALLOC + "cdef extern", 1) if "aligned_alloc" in new else text

    code, output = run_tests(build_copy(tmp_path, file, mutate), select)
    assert code == 1, output
    assert "AssertionError" in output or "unverified bytes" in output or "assert" in output, output
