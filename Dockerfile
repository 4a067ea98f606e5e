# cxrprep with all extras, for a user without privileges.
#
#   docker build -t cxrprep .
#   docker run --rm -v /data/nih:/data --user "$(id -u):$(id -g)" cxrprep status /data

FROM python:3.12.12-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY tools/build_hook.py tools/manpages.py tools/reference.py tools/reference_datasets.py tools/
COPY cxrprep cxrprep
RUN python -m venv /opt/cxrprep \
 && /opt/cxrprep/bin/python -m pip install --no-cache-dir --disable-pip-version-check '.[dask,s3,gcs,codecs,xlsx]'

FROM python:3.12.12-slim-bookworm
LABEL org.opencontainers.image.title="cxrprep" \
      org.opencontainers.image.description="Fetch, prove, label and convert the public chest X-ray collections" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/cxrprep /opt/cxrprep
RUN useradd --create-home --uid 1000 reader \
 && install --directory --owner=reader --group=reader /data
ENV PATH=/opt/cxrprep/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CXRPREP_KEYRING=0 \
    XDG_STATE_HOME=/tmp/cxrprep
USER 1000:1000
WORKDIR /data
VOLUME ["/data"]
ENTRYPOINT ["cxrprep"]
CMD ["--help"]
