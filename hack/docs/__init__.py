"""The site: docs/ as it is, the README as its first page, and a reference generated from what it describes."""
