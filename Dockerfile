# The service in one image: installed by the Makefile's recipe, started by the CLI.
#
#   docker build -t ctxmem .
#
# PyPI's torch for Linux carries CUDA. For a CPU image name PyTorch's index of CPU wheels:
#   docker build -t ctxmem --build-arg TORCH_INDEX_URL=... .

FROM python:3.11-slim AS build
ARG TORCH_INDEX_URL=""
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml Makefile README.md LICENSE ./
COPY ctxmem ctxmem
COPY service service
RUN PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL="$TORCH_INDEX_URL" make install VENV=/opt/ctxmem PACKAGE="'.[all]'"

FROM python:3.11-slim
RUN useradd --system --uid 10001 --user-group --no-create-home ctxmem \
    && install -d -o ctxmem -g ctxmem -m 0700 /var/lib/ctxmem /var/cache/ctxmem
COPY --from=build /opt/ctxmem /opt/ctxmem
ENV PATH=/opt/ctxmem/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CTXMEM_DATA_DIR=/var/lib/ctxmem \
    CTXMEM_CACHE_DIR=/var/cache/ctxmem
USER ctxmem
WORKDIR /var/lib/ctxmem
VOLUME ["/var/lib/ctxmem", "/var/cache/ctxmem"]
EXPOSE 8787
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8787/readyz', timeout=2)"]
# Listening beyond the container needs keys: CTXMEM_HOST=0.0.0.0 with CTXMEM_KEYS_FILE, as in docker-compose.yml.
CMD ["ctxmem", "serve"]
