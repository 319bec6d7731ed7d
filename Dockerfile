# The first stage builds the executable. The second one is the image: the executable and CA certificates on
# Debian. It runs as an unprivileged user. .dockerignore lists the files that the build does not get.
#
# The version is `rust-version` of Cargo.toml.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked && cp target/release/tender /tender

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home tender
COPY --from=build /tender /usr/local/bin/tender
USER tender
ENV API_BIND=0.0.0.0:4848
EXPOSE 4848
ENTRYPOINT ["tender"]
CMD ["serve"]
