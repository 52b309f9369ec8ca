"""`python -m hack.docs [DIRECTORY]`: builds the site. A warning is an error."""

import os
import subprocess
import sys
from pathlib import Path

from hack.docs import mermaid
from hack.docs.pages import ROOT


def main() -> None:
    """Builds into the directory (default: build/site). Reaches no network once mermaid is in the cache."""
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "build/site").absolute()
    if not mermaid.is_installed():
        mermaid.install()
    # The theme's notice about another project is not about this site.
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'operator'}"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(directory)]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    print(directory / "index.html")


if __name__ == "__main__":
    main()
