"""A real Kubernetes on one machine, for trying the project out and for its tests.

Run it as ``python3 -m hack.cluster --help`` from the top of the repository. It needs nothing but the standard library:
it runs before anything of the project is installed. Modules, from the bottom up:

- `console`, `commands`, `files`, `layout`: progress and errors, running programs, paths and addresses;
- `process`, `state`: daemons that outlive the command that started them, and what is remembered of a cluster;
- `binaries`, `packages`, `pki`, `api`: what a cluster is made of;
- `control_plane`, `containerd`, `node`, `network`, `dns`, `cgroups`, `remnants`: the parts of a cluster and
  what they leave behind;
- `local`, `kind`, `current`: the three kinds of cluster; `providers` chooses one;
- `recipes`, `buildah`: the images that fill it, described and built.
"""
