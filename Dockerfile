# All commands of speedlimit as one executable, in an image without a shell:
#
#     docker build -t speedlimit .
#     docker run --rm --network host speedlimit client 127.0.0.1:8000
#     docker run --rm --network host speedlimit limit --attach --listen 127.0.0.1:9000
#
# `--network host` is needed to measure the readers and servers of the host: without it 127.0.0.1 is the
# container's own, the traffic passes through a bridge, and the kernel shows only the container's
# sockets. Without it, `serve` has to be told to listen on 0.0.0.0 and its port to be published:
#
#     docker run --rm -p 127.0.0.1:8000:8000 speedlimit serve --host 0.0.0.0
#
# Files are read and written in /home/nonroot, by user 65532: the queue of `serve --overflow spill`, for example.
#
#     docker run --rm --network host -v feed:/home/nonroot speedlimit serve --overflow spill --spill feed.queue
#
# The image has no other program, so `limit -- COMMAND` has no reader to start in it. The executable needs
# only glibc, and can be copied into an image that has the reader:
#
#     FROM python:3-slim
#     COPY --from=speedlimit /usr/local/bin/speedlimit /usr/local/bin/

FROM node:22-bookworm-slim AS build
WORKDIR /speedlimit
COPY package.json package-lock.json .npmrc ./
RUN npm ci
COPY . .
RUN npm run build

# glibc, and not Alpine's musl: the kernel's figures are read by calls to libc.so.6. "nonroot" is user 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /speedlimit/dist/speedlimit /usr/local/bin/speedlimit
WORKDIR /home/nonroot
USER nonroot
ENTRYPOINT ["/usr/local/bin/speedlimit"]
CMD ["--help"]
