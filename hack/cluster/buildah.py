"""Building images without Docker and without a registry."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

from . import packages
from .binaries import digest
from .commands import find_program, run
from .console import ClusterError, step
from .layout import Layout

IMAGES = Path(__file__).parent / "images"
BASE_IMAGE = "localhost/pgmq-bus-base"
# What the base holds beyond debootstrap's minimum.
BASE_PACKAGES = ("ca-certificates", "python3", "python3-venv")
# Where pip and uv look for packages, and how the world is reached: the builder's matter, not the Dockerfile's.
PASSED_ON = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# Where programs are told of another set of certificate authorities, and where Debian keeps it.
AUTHORITIES_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE")
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


class Buildah:
    """buildah with a store of its own; never the system's.

    Args:
        layout: whose cache the store is in.
    """

    def __init__(self, layout: Layout) -> None:
        self._cache = layout.cache
        self._store = layout.cache / "buildah"
        self._run_root = layout.runtime.parent / "_buildah"

    def build(self, tag: str, context: Path, dockerfile: Path, arguments: Mapping[str, str]) -> str:
        """Build an image and return its identifier: 64 hexadecimal digits that are its content's.

        Raises:
            ClusterError: the build fails; the text carries the end of its output.
        """
        options = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        for name in PASSED_ON:
            if (value := os.environ.get(name)) is not None:
                options += ["--build-arg", f"{name}={value}"]
        authorities = next((os.environ[v] for v in AUTHORITIES_VARIABLES if os.environ.get(v)), None)
        if authorities is not None:
            options += ["--volume", f"{authorities}:{AUTHORITIES}:ro"]
        # Within a container chroot is the only isolation that can be had, and everywhere it is enough.
        self._buildah(
            "build", "--isolation", "chroot", "--layers", "--format", "docker", "--tag", tag,
            "--file", str(dockerfile), *options, str(context),
        )  # fmt: skip
        return self.identifier(tag) or ""

    def identifier(self, tag: str) -> str | None:
        """Return the identifier of an image, None when there is no such image."""
        found = self._buildah("images", "--all", "--no-trunc", "--format", "{{.Name}}:{{.Tag}} {{.ID}}").split("\n")
        return next((line.split()[1].removeprefix("sha256:") for line in found if line.startswith(f"{tag} ")), None)

    def save(self, image: str, name: str, archive: Path) -> None:
        """Write an image under a full name to an archive that container engines load."""
        archive.unlink(missing_ok=True)  # buildah does not replace one
        self._buildah("push", "--quiet", image, f"docker-archive:{archive}:{name}")

    def base(self) -> str:
        """Return the name of an image with Debian and Python, made first where it is missing.

        Raises:
            ClusterError: this machine's packages are not Debian's.
        """
        suite, mirror = debian()
        recipe = digest([IMAGES / "base" / "Dockerfile"], *BASE_PACKAGES)
        tag = f"{BASE_IMAGE}:{suite}-{recipe}"
        if self.identifier(tag) is None:
            with step(f"making a base image of Debian {suite}", "a minute, once"):
                self._bootstrap(tag, suite, mirror)
        return tag

    def _bootstrap(self, tag: str, suite: str, mirror: str) -> None:
        context = self._cache / "base.unfinished"
        root = context / "root"
        run(["rm", "-rf", "--one-file-system", str(context)])
        root.mkdir(parents=True)
        run(["debootstrap", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}", suite, str(root), mirror])
        useless = ["./var/cache/apt/archives/*.deb", "./var/lib/apt/lists/*", "./usr/share/doc/*", "./dev/*"]
        excluded = [f"--exclude={pattern}" for pattern in useless]
        run(["tar", "--create", "--file", str(context / "root.tar"), *excluded, "-C", str(root), "."])
        self.build(tag, context, IMAGES / "base" / "Dockerfile", {})
        run(["rm", "-rf", "--one-file-system", str(context)])

    def command(self) -> list[str]:
        """buildah with this store, to which its arguments are added."""
        return ["buildah", "--root", str(self._store), "--runroot", str(self._run_root)]

    def _buildah(self, *arguments: str) -> str:
        if find_program("buildah") is None:
            raise ClusterError("buildah is not installed: run `up` first, which installs it, or install it yourself")
        self._store.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._run_root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return run([*self.command(), *arguments])


def debian() -> tuple[str, str]:
    """Return the suite and the mirror of this machine's own packages: `bookworm`, `http://...`.

    Raises:
        ClusterError: this machine's packages are not Debian's.
    """
    packages.ensure(packages.IMAGE_PACKAGES)
    release = platform.freedesktop_os_release()
    if release["ID"] != "debian":
        raise ClusterError(f"the base image is made of Debian packages, and this is {release['NAME']}: use kind")
    suite = release["VERSION_CODENAME"]
    wanted = ["Created-By: Packages", "Origin: Debian", f"Codename: {suite}", "Component: main"]
    mirrors = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", *wanted]).split()
    if not mirrors:
        raise ClusterError(f"apt on this machine knows no mirror of Debian {suite}: see /etc/apt/sources.list")
    return suite, mirrors[0]
