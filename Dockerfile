# The gateway as one static file in an empty image.
#
#   docker build -t spillover .
#   docker run --rm -p 8080:8080 -v "$PWD/spillover.toml:/etc/spillover/spillover.toml:ro" \
#     -e EAST_KEY spillover
#
# In there, `[listen] address = "0.0.0.0:8080"`: 127.0.0.1 is the container's own.
# Whether it is alive is asked over HTTP (/healthz, /readyz): the image has no shell to ask with.

FROM rust:1-alpine AS build
RUN apk add --no-cache build-base
WORKDIR /build
# What cargo wants to see of the workspace, by `.dockerignore`.
COPY . .
# rustc links musl and all else statically on Alpine.
ENV CARGO_PROFILE_RELEASE_LTO=thin CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 CARGO_PROFILE_RELEASE_STRIP=symbols
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin spillover \
    && cp target/release/spillover /spillover

FROM scratch
# Certificates of public authorities are compiled in; those of one's own are `[upstream] trust`.
COPY --from=build /spillover /usr/local/bin/spillover
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/spillover"]
CMD ["serve", "--config", "/etc/spillover/spillover.toml"]
