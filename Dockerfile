# The gateway's image: data plane, console, Celery and migrations; which one is the command's choice.
# No torch in it. docs/deploy.md says what was seen of it.

# The full image has a compiler, for a dependency that comes without a wheel for this platform.
FROM python:3.11-bookworm AS install
COPY requirements.lock /requirements.lock
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --require-hashes --requirement /requirements.lock

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin tokenhouse \
    && install --directory --owner=tokenhouse --mode=0700 /data
COPY --from=install /venv /venv
WORKDIR /app
COPY manage.py ./
COPY billing ./billing
COPY providers ./providers
COPY gateway ./gateway
COPY templates ./templates
COPY static ./static
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TOKENHOUSE_DATA_DIR=/data
USER tokenhouse
VOLUME /data
EXPOSE 8000 8001
CMD ["granian", "--interface=asgi", "--host=0.0.0.0", "--port=8000", "--no-ws", "gateway.dataplane.app:app"]
