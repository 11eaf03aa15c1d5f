# The base is pinned by tag. A registry is needed to learn its digest; to pin by digest, build with
# --build-arg PYTHON_IMAGE=python@sha256:...
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_INPUT=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# Dependencies first: this layer is built again only when a lock changes. The image's environment gets no pip.
COPY requirements/build.txt requirements/image.txt requirements/
RUN python -m venv --without-pip /opt/storage-service \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --only-binary :all: -r requirements/build.txt \
    && /opt/build/bin/pip --python /opt/storage-service/bin/python install --require-hashes --only-binary :all: \
        -r requirements/image.txt
COPY pyproject.toml LICENSE README.md* ./
COPY storage_service storage_service
COPY clients/python clients/python
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir wheels ./clients/python . \
    && /opt/build/bin/pip --python /opt/storage-service/bin/python install --no-deps --no-index wheels/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="storage-service" \
      org.opencontainers.image.description="Storage service for agent runtimes over gRPC" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 storage \
    && useradd --uid 10001 --gid storage --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin storage
COPY --from=builder /opt/storage-service /opt/storage-service
# Nothing is written at run time, so the container may run with a read-only root file system. Where to listen is said
# here rather than by CMD, so that the health check asks there too, and a command of one's own keeps it.
ENV PATH=/opt/storage-service/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    STORAGE_HOST=0.0.0.0 \
    STORAGE_PORT=50051
USER 10001:10001
EXPOSE 50051
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["storage-service", "health"]
ENTRYPOINT ["storage-service"]
# Listening beyond loopback needs a token file and TLS (or a setting that says in words to do without); `serve` refuses
# to start otherwise and names the settings.
CMD ["serve"]
