# One image: by itself the web server with the code location and SQLite; in deploy/docker-compose.yaml the code location, the
# web server and the daemon of the production instance. What is to last lies in /var/lib/rm_assets: mount a volume there.
FROM python:3.11.14-slim-bookworm AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

# The large packages first, in a layer that changes only with the versions.
WORKDIR /src
COPY constraints.txt .
RUN pip install -c constraints.txt torch==2.13.0
COPY pyproject.toml README.md LICENSE ./
COPY rm_assets rm_assets
RUN pip install -c constraints.txt '.[production,s3,gcs]'


FROM python:3.11.14-slim-bookworm

RUN useradd --create-home --uid 1000 dagster \
    && mkdir -p /opt/dagster/production /var/lib/rm_assets/dagster \
    && chown -R dagster:dagster /opt/dagster /var/lib/rm_assets
COPY --from=build /opt/venv /opt/venv
COPY --chown=dagster:dagster dagster.yaml workspace.yaml /opt/dagster/
COPY --chown=dagster:dagster deploy/dagster.yaml deploy/workspace.yaml /opt/dagster/production/

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DAGSTER_HOME=/opt/dagster \
    DAGSTER_LOCAL_DIR=/var/lib/rm_assets/dagster \
    RM_ASSETS_HOME=/var/lib/rm_assets/store \
    RM_ASSETS_CACHE=/var/lib/rm_assets/cache \
    HF_HOME=/var/lib/rm_assets/huggingface
USER dagster
WORKDIR /opt/dagster
VOLUME /var/lib/rm_assets
EXPOSE 3000

HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:3000/server_info', timeout=4)"]
CMD ["dagster-webserver", "-h", "0.0.0.0", "-p", "3000", "-w", "workspace.yaml"]
