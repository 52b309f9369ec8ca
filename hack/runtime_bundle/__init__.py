"""bus_runtime and all that it imports, in one directory for each CPython that is supported: what pods get mounted.

Compiled modules carry the Python that they are for in their names (`protocol.cpython-313-x86_64-linux-gnu.so`), so
those of several Pythons lie side by side, and each Python finds its own. docs/decisions/0026-injected-runtime.md has
the reasons.
"""

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""CPython versions that the bundle is for: those in the classifiers of pyproject.toml."""

GLIBC = (2, 28)
"""The oldest glibc: what the wheel of asyncpg for CPython 3.12 needs, the most demanding one."""
