"""Build of the data plane: one Extension per .pyx, so that each module is a room of its own.

Switches (environment):
  VEIL_MODULES=srtp,rtp   build only these modules
  RELAY_DEBUG=1           debug twin: checks on, slots poisoned, owner checks, leak counters
  RELAY_SANITIZE=1        address and undefined-behaviour sanitizers
  RELAY_ANNOTATE=1        write Cython's annotated HTML beside each .c
  RELAY_WERROR=0          warnings no longer stop the build (for other compilers)
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

ROOT = Path(__file__).parent
CORE = ROOT / "ext" / "relaycore"


def switch(name: str, default: str = "0") -> bool:
    return os.environ.get(name, default) == "1"


# Libraries by module; everything else needs none. ipsec-mb is linked statically (about 15 MB), so into one module only.
LIBRARIES = {
    "cipher": ["-l:libIPSec_MB.a", "-lcrypto"],
    "stun": ["-lcrypto"],
    "worker": ["-lpthread"],
}

compile_args = ["-O2", "-g", "-std=gnu11", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Wconversion"]
link_args: list[str] = []
macros = [("RELAY_DEBUG", "1" if switch("RELAY_DEBUG") else "0"), ("_GNU_SOURCE", "1")]
if switch("RELAY_WERROR", "1"):
    compile_args.append("-Werror")
if switch("RELAY_SANITIZE"):
    compile_args += ["-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    link_args += ["-fsanitize=address,undefined"]

only = {name for name in os.environ.get("VEIL_MODULES", "").split(",") if name}
extensions = [
    Extension(
        f"relaycore.{source.stem}",
        [str(source.relative_to(ROOT))],
        extra_compile_args=compile_args,
        extra_link_args=link_args + LIBRARIES.get(source.stem, []),
        define_macros=macros,
    )
    for source in sorted(CORE.glob("*.pyx"))
    if not only or source.stem in only
]

setup(
    packages=["relaycore", *find_packages(include=["relay", "relay.*"])],
    package_dir={"relaycore": "ext/relaycore", "relay": "relay"},
    package_data={"relaycore": ["*.pyi", "*.pxd"], "relay": ["web/**/*"]},
    ext_modules=cythonize(
        extensions,
        include_path=["ext"],
        annotate=switch("RELAY_ANNOTATE"),
        build_dir="build/cython",
        compiler_directives={"language_level": 3},
        show_all_warnings=False,
    ),
)
