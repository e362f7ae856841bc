# syntax=docker/dockerfile:1
# One image for every pod. For a try on CPUs, for GPUs, and for GPUs with what compressing needs:
#   docker build --tag headrace:0.1.0-cpu .
#   docker build --build-arg VARIANT=gpu --tag headrace:0.1.0-gpu .
#   docker build --build-arg VARIANT=gpu --build-arg EXTRA=compress --tag headrace:0.1.0-gpu-compress .
# Not built yet: it was written where no container engine ran. Its steps are those of scripts/install.py.
# For production add the digest: python:3.11.14-slim-bookworm@sha256:...
FROM python:3.11.14-slim-bookworm AS python

FROM python AS build
SHELL ["/bin/bash", "-o", "errexit", "-o", "pipefail", "-c"]
ARG VARIANT=cpu
ARG EXTRA=
# Where torch's CPU build is found if the configured index lacks it, as in scripts/install.py.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/headrace
ENV PATH=/opt/headrace/bin:$PATH
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY headrace headrace
COPY compress compress
COPY cluster cluster
COPY deployments deployments
COPY simulation simulation
COPY autoscaling autoscaling
COPY routing routing
# Beside a CPU torch, CUDA builds of torch's companions break every import of transformers; nothing needs them.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt pip; \
    if [ "$VARIANT" = cpu ]; then export PIP_EXTRA_INDEX_URL="$TORCH_INDEX"; fi; \
    pip install --constraint constraints.txt --group fetch ".[$VARIANT,postgres${EXTRA:+,$EXTRA}]"; \
    if [ "$VARIANT" = cpu ]; then pip uninstall --yes torchvision torchaudio torchcodec; fi
# What can't be installed with what it asks for: pyproject.toml says why.
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ "$EXTRA" = compress ]; then \
        python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['tool']['headrace']['without_dependencies'])" \
        | xargs pip install --no-deps; \
    fi

FROM python
SHELL ["/bin/bash", "-o", "errexit", "-o", "pipefail", "-c"]
ARG VARIANT=cpu
# vLLM's CPU build loads libnuma; its GPU build compiles kernels when it starts.
# Debian keeps only the newest of its security updates, so packages have no versions here.
# hadolint ignore=DL3008
RUN apt-get update; \
    apt-get install --yes --no-install-recommends libnuma1; \
    if [ "$VARIANT" = gpu ]; then apt-get install --yes --no-install-recommends gcc libc6-dev; fi; \
    rm -rf /var/lib/apt/lists/*; \
    useradd --uid 10001 --create-home headrace
COPY --from=build /opt/headrace /opt/headrace
ENV PATH=/opt/headrace/bin:$PATH NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
WORKDIR /home/headrace
