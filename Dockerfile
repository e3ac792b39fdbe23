# The image of ragd: the binary, the libraries it needs, nothing to build with. State is in /app/data.
#   docker build -t ragd .        docker run -p 127.0.0.1:8000:8000 -v ragd-data:/app/data ragd
ARG BASE=debian:12-slim

FROM ${BASE} AS tools
WORKDIR /src
COPY deploy/packages.txt deploy/install-packages.sh deploy/
RUN deploy/install-packages.sh --clean build

FROM tools AS build
COPY . .
ARG COMMIT=unknown
RUN make -j"$(nproc)" COMMIT="$COMMIT" all && make COMMIT="$COMMIT" install DESTDIR=/out PREFIX=/usr && strip /out/usr/bin/ragd

FROM ${BASE}
COPY deploy/packages.txt deploy/install-packages.sh /tmp/deploy/
RUN /tmp/deploy/install-packages.sh --clean run && rm -rf /tmp/deploy \
    && groupadd --gid 1000 ragd && useradd --uid 1000 --gid 1000 --home-dir /app --shell /usr/sbin/nologin ragd \
    && install -d -o ragd -g ragd /app /app/data /run/ragd
COPY --from=build /out/ /
USER 1000:1000
WORKDIR /app
VOLUME /app/data
ENV PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=5s --retries=3 CMD ["/usr/bin/ragd", "health"]
ENTRYPOINT ["/usr/bin/ragd"]
CMD ["serve"]
