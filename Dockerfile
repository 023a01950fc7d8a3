# msad for CPUs, with exports: what it needs is installed, and `msad doctor` is what it does unless told otherwise.
#
#     docker build --tag msad .
#     docker run --rm msad
#
# docs/quickstart.md has more. torch's usual wheels for Linux bring several GB for GPUs; with
# --build-arg PIP_EXTRA_INDEX_URL=… and torch's own index of CPU wheels they are not brought along.
FROM python:3.13-slim

ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY msad_cli ./msad_cli
RUN pip install --no-cache-dir '.[export]'

# Whoever runs it may be any user (--user), who has no home here.
ENV MSAD_CACHE=/tmp/msad MPLCONFIGDIR=/tmp/matplotlib
RUN useradd --create-home msad
USER msad
WORKDIR /work
ENTRYPOINT ["msad"]
CMD ["doctor"]
