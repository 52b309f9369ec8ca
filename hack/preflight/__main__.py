"""`python3 -m hack.preflight TARGET`: what this machine lacks for `make TARGET`.

A line each: what, what for, and how to get it. With `--after STEP` a step has failed, and it says whether that was the
network. This file runs on any Python 3, so that it can say which one is needed; the checks are in needs.py.
"""

import os
import shutil
import subprocess
import sys

NEEDED = (3, 11)


def main():
    """The exit status: 0 when nothing is missing."""
    if sys.version_info < NEEDED:
        return tell([_python()])
    from hack.preflight import needs, network

    if sys.argv[1] == "--after":
        return tell(network.missing(sys.argv[2]))
    return tell(needs.missing(sys.argv[1]))


def tell(lines):
    """Prints them, once each."""
    found = list(dict.fromkeys(lines))
    for line in found:
        sys.stderr.write("missing: {}\n".format(line))
    return 1 if found else 0


def _python():
    this = "{} is {}".format(sys.executable, ".".join(map(str, sys.version_info[:3])))
    newer = ["python3.{}".format(minor) for minor in range(20, 10, -1)]
    there = [
        name
        for name in newer
        if shutil.which(name) and not subprocess.call([name, "-c", ""], stderr=subprocess.DEVNULL)
    ]
    if there:
        remedy = "make PYTHON={} ...".format(there[0])
    elif shutil.which("apt-get"):
        remedy = "{}apt-get install python3.11 python3.11-venv, then make PYTHON=python3.11 ...".format(_sudo())
    else:
        remedy = "install it, then make PYTHON=python3.11 ..."
    return "Python {} or newer ({}): {}".format(".".join(map(str, NEEDED)), this, remedy)


def _sudo():
    return "" if os.geteuid() == 0 else "sudo "


if __name__ == "__main__":
    sys.exit(main())
