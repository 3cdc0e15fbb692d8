# An image of rtpush:  docker build -t rtpush .
# It has no configuration: mount one at /etc/rtpush/rtpush.ini. docs/install.rst tells how to run it.

FROM python:3.13-bookworm AS build
WORKDIR /src
COPY setup.cfg setup.py pyproject.toml README.rst LICENSE ./
COPY conf conf
COPY twisted twisted
COPY rtpush rtpush
# At its end the list of twistd's plugins is written, since nobody can write it in the image later.
RUN python -m venv --without-pip /opt/rtpush \
    && python -m pip --python /opt/rtpush/bin/python --disable-pip-version-check install --no-cache-dir . \
    && /opt/rtpush/bin/twistd --help > /dev/null


FROM python:3.13-slim-bookworm
COPY --from=build /opt/rtpush /opt/rtpush
ENV PATH=/opt/rtpush/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RTPUSH_SERVER=http://127.0.0.1:8080/
# Nobody in particular: rtpush owns no file and writes none.
USER 10001:10001
WORKDIR /
# Clients; and, where [api] listen says so, backends and operators.
EXPOSE 8080 8090
# The clients are told to go to other nodes, for [server] drain_window: give it more time than that to stop.
STOPSIGNAL SIGTERM
# Whether it lives, not whether it is ready: it must not be restarted because Redis is away.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; \
u.build_opener(u.ProxyHandler({})).open(os.environ['RTPUSH_SERVER'] + 'healthz', timeout=4)"]
ENTRYPOINT ["twistd", "--nodaemon", "--pidfile=", "rtpush"]
CMD ["--config", "/etc/rtpush/rtpush.ini"]
