"""What `import bus_runtime` finds first in a pod that got it injected (docs/injection.md): it loads the right one.

It stands alone in the directory that the operator adds to PYTHONPATH, so nothing else of the image is hidden, and
nothing happens in a program that does not import it. An image's own bus_runtime goes before the injected one. What the
injected one needs is looked for at the end of sys.path: an image's own packages go before those, too.

Every Python there may be must be able to read this file, since it is what says that one is not supported: its syntax is
that of Python 3.6.
"""

import importlib.machinery
import json
import os
import re
import sys

NAME = "bus_runtime"
PACKAGE = os.path.dirname(os.path.realpath(__file__))
PATH = os.path.dirname(PACKAGE)
BUNDLE = os.path.dirname(PATH)
LIBRARY = os.path.join(BUNDLE, "lib")

COMPARISONS = {
    ">=": lambda one, other: one >= other,
    "==": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    "<": lambda one, other: one < other,
}


def unsupported(contents, name, version, abi, glibc):
    """Why this Python cannot use the bundle, None if it can.

    Args:
        contents: The bundle's contents.json.
        name: The implementation, as `CPython`.
        version: Such as `3.13`.
        abi: How compiled modules are marked, such as `cpython-313-x86_64-linux-gnu`; empty if none can be loaded.
        glibc: Its version, such as `2.36`; None where there is another C library.
    """
    architecture = contents["architecture"]
    builds = ["cpython-{}-".format(python.replace(".", "")) for python in contents["pythons"]]
    abis = ["{}{}-linux-gnu".format(build, architecture) for build in builds]
    if abi in abis and glibc is not None and release(glibc) >= contents["glibc"]:
        return None
    library = "glibc {}".format(glibc) if glibc else "no glibc, so perhaps musl (Alpine)"
    remedy = "Base the image on one of these (such as python:{}-slim)".format(contents["pythons"][-1])
    # For others, such as free-threaded ones, not all that it needs comes compiled.
    if abi.startswith(tuple(builds)):
        remedy += ", or install it there: pip install . in a checkout of pgmq-bus"
    return (
        "bus_runtime was injected into this container, and this Python cannot use it: it is {} {} ({}, {}), and what is"
        " injected is for CPython {} on {} with glibc {} or newer. {}, and leave out the annotation"
        " pgmqbus.dev/inject-runtime".format(
            name, version, abi or "which loads no compiled modules", library, ", ".join(contents["pythons"]),
            architecture, ".".join(map(str, contents["glibc"])), remedy,
        )
    )  # fmt: skip


def conflicts(contents, versions):
    """What the image has itself and does not go together with what comes from the bundle, a text each.

    Args:
        contents: The bundle's contents.json.
        versions: Those of the packages of the bundle that the image has as well, by name; None: not known.
    """
    found = []
    for need in contents["needs"]:
        version = versions.get(need["package"])
        # What another package of the image needs is the image's matter.
        if version is None or need["by"] in versions:
            continue
        if not all(COMPARISONS[operator](*aligned(version, bound)) for operator, bound in need["bounds"]):
            bounds = ",".join(operator + bound for operator, bound in need["bounds"])
            found.append("{} {} ({} needs {})".format(need["package"], version, need["by"], bounds))
    return found


def release(version):
    """The numbers that a version begins with."""
    return [int(number) for number in re.match(r"[\d.]*", version).group().split(".") if number]


def aligned(one, other):
    """Two versions as lists of the same length."""
    first, second = release(one), release(other)
    length = max(len(first), len(second))
    return first + [0] * (length - len(first)), second + [0] * (length - len(second))


def _load():
    spec = _of_the_image()
    if spec is None:
        with open(os.path.join(BUNDLE, "contents.json")) as file:
            contents = json.load(file)
        why = unsupported(contents, *_this_python())
        if why is not None:
            raise _error(why, code="RuntimeUnsupported")
        clashing = conflicts(contents, _versions_of_the_image(contents))
        if clashing:
            why = "the injected bus_runtime does not go together with what the image has: {}. Change these in the image"
            raise _error(why.format(", ".join(clashing)), code="RuntimeConflict")
        if LIBRARY not in sys.path:
            sys.path.append(LIBRARY)
        spec = importlib.machinery.PathFinder.find_spec(NAME, [LIBRARY])
    _become(spec)


def _become(spec):
    """Makes this module the one that was found. Not one beside it: another thread that imports it as well has this one
    already, and waits until it is complete.
    """
    module = sys.modules[NAME]
    attributes = vars(module)
    for name in [name for name in attributes if not name.startswith("__")]:
        del attributes[name]
    attributes.update(
        __spec__=spec, __loader__=spec.loader, __file__=spec.origin, __cached__=spec.cached,
        __path__=spec.submodule_search_locations, __doc__=None,
    )  # fmt: skip
    if spec.submodule_search_locations is None:
        del attributes["__path__"]
    # By this the import system knows that it is not complete.
    spec._initializing = True
    try:
        spec.loader.exec_module(module)
    finally:
        spec._initializing = False


def _of_the_image():
    """Where the image has bus_runtime itself, if it has."""
    for finder in sys.meta_path:
        if finder is importlib.machinery.PathFinder:
            spec = finder.find_spec(NAME, _path_of_the_image())
        else:
            # Such as that of an editable installation. It may find this file, too.
            find = getattr(finder, "find_spec", None)
            spec = find(NAME, None) if find else None
        if spec is not None and spec.has_location and os.path.dirname(os.path.realpath(spec.origin)) != PACKAGE:
            return spec
    return None


def _path_of_the_image():
    return [entry for entry in sys.path if os.path.realpath(entry or os.curdir) not in (PATH, LIBRARY)]


def _versions_of_the_image(contents):
    path = _path_of_the_image()
    names = [
        name
        for name, package in contents["packages"].items()
        if importlib.machinery.PathFinder.find_spec(package["module"], path) is not None
    ]
    if not names:
        return {}
    from importlib import metadata

    versions = {}
    for name in names:
        found = next(iter(metadata.distributions(name=name, path=path)), None)
        # A copy that says nothing of its version is taken for a good one.
        versions[name] = found.version if found else None
    return versions


def _this_python():
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    abi = suffixes[0].split(".")[1] if suffixes and suffixes[0].count(".") > 1 else ""
    name = {"cpython": "CPython", "pypy": "PyPy"}.get(sys.implementation.name, sys.implementation.name)
    return name, "{}.{}".format(*sys.version_info[:2]), abi, _glibc()


def _glibc():
    try:
        name, version = os.confstr("CS_GNU_LIBC_VERSION").split()
    except (AttributeError, OSError, ValueError):
        return None
    return version if name == "glibc" else None


def _error(message, code):
    error = ImportError("{} [{}]".format(message, code), name=NAME)
    error.code = code
    return error


if __name__ == NAME:
    _load()
