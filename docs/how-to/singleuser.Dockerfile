# One user's server for JupyterHub on Kubernetes: JupyterLab, cambio_lab and the programs of its sandboxed desktops.
# `dist` is a folder with the wheel of cambio_lab, and with those it needs where PyPI cannot be reached (PIP_NO_INDEX=1).
ARG BASE=cambio-lab-desktop
FROM $BASE
USER root
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      python3-venv bubblewrap slirp4netns x11-xkb-utils git \
 && rm -rf /var/lib/apt/lists/*
COPY dist/ /tmp/dist/
ARG PIP_NO_INDEX=0
RUN python3 -m venv /opt/lab \
 && /opt/lab/bin/pip install --no-cache-dir --find-links /tmp/dist "cambio-lab[lab]" jupyterhub \
 && rm -rf /tmp/dist
ENV PATH=/opt/lab/bin:$PATH CAMBIO_LAB_DESKTOP=sandbox
WORKDIR /home/user
USER user
EXPOSE 8888
CMD ["jupyterhub-singleuser", "--ip=0.0.0.0"]
