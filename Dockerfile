# A static binary, as nobody in particular, and nothing else.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=dev
ENV CGO_ENABLED=0
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/secateur ./cmd/secateur
# A volume that is mounted here takes the owner over.
RUN mkdir -p /out/models

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/secateur /secateur
COPY --from=build --chown=65532:65532 /out/models /models
USER 65532:65532
EXPOSE 8500 8501
VOLUME /models
ENTRYPOINT ["/secateur"]
CMD ["serve", "--listen", "0.0.0.0:8500", "--http", "0.0.0.0:8501", "--models", "/models"]
