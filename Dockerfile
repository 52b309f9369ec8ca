# The operator, and what a worker needs to import bus_runtime. Builds with any BuildKit or buildah.
# The base must have Python >= 3.11 with venv, ca-certificates, and cp, which copies bus_runtime into pods that ask for it.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS tools
# For builders behind a mirror or a proxy; unset, they are not there.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# What builds is kept apart from what runs: the runtime's environment has no pip in it.
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install hatchling==1.33.0 uv==0.13.9 \
    && python3 -m venv --without-pip /opt/pgmq-bus
WORKDIR /src

# By itself, so that a change of the linters' settings, say, does not install everything again. Of the file only
# the content may matter: some builders go by its time too.
FROM tools AS requirements
COPY pyproject.toml uv.lock ./
RUN /opt/build/bin/uv export --frozen --quiet --no-default-groups --extra operator --extra direct \
        --no-emit-project --no-annotate --no-header --output-file /requirements.txt \
    && touch --date=@0 /requirements.txt

# pip, because it takes any index or mirror, where uv would find its lock outdated; the lock's hashes hold either way.
FROM tools AS dependencies
COPY --from=requirements /requirements.txt /requirements.txt
RUN /opt/build/bin/pip --python /opt/pgmq-bus/bin/python install \
        --require-hashes --only-binary :all: --requirement /requirements.txt

# bus_runtime for images that lack it (docs/injection.md): what it imports, for each Python that is supported. Wheels are
# locked and chosen by version, none is built, so the Python of the base need not be among them.
FROM tools AS bundle-requirements
COPY uv.lock ./
COPY hack/runtime_bundle hack/runtime_bundle
RUN /opt/build/bin/python -m hack.runtime_bundle requirements uv.lock /bundle-requirements \
    && touch --date=@0 /bundle-requirements/* /bundle-requirements

FROM tools AS bundle-wheels
COPY --from=bundle-requirements /bundle-requirements /bundle-requirements
COPY hack/runtime_bundle hack/runtime_bundle
RUN /opt/build/bin/python -m hack.runtime_bundle install /bundle-requirements /bundle-wheels

FROM bundle-wheels AS bundle
COPY pyproject.toml ./
RUN /opt/build/bin/python -m hack.runtime_bundle assemble /bundle-wheels /opt/pgmq-bus-runtime \
    && find /opt/pgmq-bus-runtime -exec touch --date=@0 {} +

# The project by itself, beside its dependencies: a change of the source makes a layer of its own size again, no more.
FROM dependencies AS project
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY bus_runtime bus_runtime
COPY crds crds
COPY docs/errors.md docs/errors.md
COPY operator operator
RUN /opt/build/bin/pip wheel --no-build-isolation --no-deps --wheel-dir /tmp/wheels . \
    && /opt/build/bin/pip --python /opt/pgmq-bus/bin/python install --no-deps --no-warn-script-location \
        --root /project /tmp/wheels/*.whl

FROM ${BASE_IMAGE}
# With a name: some libraries ask for the user's.
RUN groupadd --gid 65532 bus && useradd --uid 65532 --gid bus --no-create-home --home-dir /nonexistent bus
COPY --from=dependencies /opt/pgmq-bus /opt/pgmq-bus
COPY --from=bundle /opt/pgmq-bus-runtime /opt/pgmq-bus-runtime
COPY --from=project /project/ /
# Written out rather than taken from the distribution, so that it is by itself, too.
COPY bus_runtime /opt/pgmq-bus-runtime/lib/bus_runtime
ENV PATH=/opt/pgmq-bus/bin:${PATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# glibc: what was needed for a moment, as for a list of thousands of resources, goes back to the system: 20 MiB less.
ENV MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=65536
USER 65532:65532
WORKDIR /
ENTRYPOINT ["bus-operator"]
