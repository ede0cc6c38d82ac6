# Debian with its own Python, rather than the python image, which compiles one: security updates of
# all but /opt come from Debian, and scanners know each part by its package.
FROM debian:trixie-slim AS python
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log


FROM python AS build
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        python3-hatchling python3-pip
# Without pip in it, as it is copied whole. Where packages come from a mirror, pass its pip.conf with
# `--secret id=pip,src=…`, and what its `cert` names, /run/secrets/ca, with `--secret id=ca,src=…`.
RUN python3 -m venv --without-pip /opt/pushsvc
COPY requirements-runtime.txt /src/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    pip --python /opt/pushsvc/bin/python install --no-cache-dir --only-binary :all: \
        --require-hashes -r /src/requirements-runtime.txt
COPY . /src
RUN cd /src && python3 -m hatchling build -t wheel \
    && pip --python /opt/pushsvc/bin/python install --no-cache-dir --no-index --no-deps dist/*.whl


FROM python
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="pushsvc" \
      org.opencontainers.image.description="Push notifications with an acknowledged, durable mailbox per user and device" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
COPY --from=build /opt/pushsvc /opt/pushsvc
# Nothing is written: the root can be read-only.
ENV PATH=/opt/pushsvc/bin:$PATH \
    HOME=/nonexistent \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# By number, so that `runAsNonRoot` can be checked.
USER 65532:65532
WORKDIR /tmp
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
ENTRYPOINT ["pushsvc"]
CMD ["serve"]
