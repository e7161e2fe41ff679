#!/bin/sh
# Builds the sidecar's image with podman or docker. What follows goes to its build command:
#
#     images/sidecar/build.sh
#     BASE=localhost/python:3.11-slim images/sidecar/build.sh --pull=never
#     ENGINE=docker TAG=example.org/jupyterhub-sidecar:0.1.0 images/sidecar/build.sh --push
#
# Packages come from where pip in the base image gets them. Behind a mirror, podman can lend it this machine's settings:
# --volume /etc/pip.conf:/etc/pip.conf:ro --volume /etc/ssl/certs:/etc/ssl/certs:ro
set -eu
cd "$(dirname "$0")/../.."
engine=${ENGINE:-$(command -v podman || command -v docker)} || {
    echo "build.sh: neither podman nor docker is here; ENGINE names another" >&2
    exit 1
}
exec "$engine" build --file images/sidecar/Dockerfile --tag "${TAG:-localhost/jupyterhub-sidecar}" \
    --build-arg "BASE=${BASE:-docker.io/library/python:3.11-slim}" "$@" .
