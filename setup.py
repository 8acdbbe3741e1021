"""Build of the data plane: one Extension per .pyx, so that each module is a room of its own.

Switches (environment):
  VEIL_MODULES=srtp,rtp   build only these modules
  RELAY_DEBUG=1           debug twin: checks on, slots poisoned, owner checks, leak counters
  RELAY_SANITIZE=1        address and undefined-behaviour sanitizers
  RELAY_ANNOTATE=1        write Cython's annotated HTML beside each .c
  RELAY_WERROR=0          warnings no longer stop the build (for other compilers)
  RELAY_JOBS=2            modules translated at a time

The macro RELAY_DEBUG is C's affair, so all flavours share the translated .c files in build/cython; where the
compiled modules go is the caller's `--build-lib` and `--build-temp` (see Makefile).
"""

import contextlib
import os
import platform
import re
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

ROOT = Path(__file__).parent
CORE = ROOT / "ext" / "relaycore"
TRANSLATED = ROOT / "build" / "cython"


def switch(name: str, default: str = "0") -> bool:
    return os.environ.get(name, default) == "1"


# ipsec-mb exists for x86-64 alone; `cipher` is OpenSSL's elsewhere. Linked statically (about 15 MB), so into one module only.
IPSEC_MB = ["-l:libIPSec_MB.a"] if platform.machine() == "x86_64" else []
# Libraries by module; everything else needs none.
LIBRARIES = {
    "cipher": [*IPSEC_MB, "-lcrypto"],
    "stun": ["-lcrypto"],
    "worker": ["-lpthread"],
}

compile_args = ["-O2", "-g", "-std=gnu11", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Wconversion"]
link_args: list[str] = []
macros = [("RELAY_DEBUG", "1" if switch("RELAY_DEBUG") else "0"), ("_GNU_SOURCE", "1")]
if switch("RELAY_WERROR", "1"):
    compile_args.append("-Werror")
if switch("RELAY_SANITIZE"):
    compile_args += [
        "-O1",
        "-fno-omit-frame-pointer",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined",
    ]
    link_args += ["-fsanitize=address,undefined"]

only = {name for name in os.environ.get("VEIL_MODULES", "").split(",") if name}
extensions = [
    Extension(
        f"relaycore.{source.stem}",
        [str(source.relative_to(ROOT))],
        extra_compile_args=compile_args,
        extra_link_args=link_args + LIBRARIES.get(source.stem, []),
        define_macros=macros,
        # Other flags are another build.
        depends=["setup.py"],
    )
    for source in sorted(CORE.glob("*.pyx"))
    if not only or source.stem in only
]


class HintWatch:
    """Standard error that passes everything on and keeps Cython's performance hints.

    A hint means a call that takes the GIL to look for an exception (STYLE 3.1: ~35 us against 0.3 us with one busy
    Python thread), which a worker must never do; so a hint stops the build. Kept in a file because modules are
    translated in several processes.
    """

    def __init__(self, stream, kept: Path) -> None:
        self._stream = stream
        self._kept = kept

    def write(self, text: str) -> int:
        if "performance hint" in text:
            with self._kept.open("a", encoding="utf-8") as kept:
                kept.write(text)
        return self._stream.write(text)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def translate() -> list[Extension]:
    """Run Cython over what changed.   Errors: SystemExit where it printed a performance hint."""
    TRANSLATED.mkdir(parents=True, exist_ok=True)
    kept = TRANSLATED / f"hints.{os.getpid()}"
    kept.unlink(missing_ok=True)
    with contextlib.redirect_stderr(HintWatch(sys.stderr, kept)):
        translated = cythonize(
            extensions,
            include_path=["ext"],
            annotate=switch("RELAY_ANNOTATE"),
            build_dir=str(TRANSLATED.relative_to(ROOT)),
            compiler_directives={"language_level": 3},
            show_all_warnings=False,
            nthreads=int(os.environ.get("RELAY_JOBS", "0")),
        )
    if kept.exists():
        hinted = set(re.findall(r"(\w+)\.p(?:yx|xd):\d+", kept.read_text(encoding="utf-8")))
        kept.unlink()
        # A translated file counts as done for the next run, so what was hinted at goes.
        for source in TRANSLATED.rglob("*.c"):
            if source.stem in hinted:
                source.unlink()
        sys.exit(f"Cython's performance hints stop the build (modules: {', '.join(sorted(hinted))}); see above.")
    return translated


setup(
    packages=["relaycore", *find_packages(include=["relay", "relay.*"])],
    package_dir={"relaycore": "ext/relaycore", "relay": "relay"},
    package_data={"relaycore": ["*.pyi", "*.pxd"], "relay": ["web/**/*", "session/sctp/*.h"]},
    cffi_modules=["relay/session/sctp/_build.py:ffibuilder"] if not only or "sctp" in only else [],
    ext_modules=translate(),
)
