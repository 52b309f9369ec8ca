"""The runtime's version, spelt out because an injected copy has no package metadata to read it from."""

__version__ = "0.1.0"
