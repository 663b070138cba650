#!/bin/sh
# Generates the Go code of the .proto files in this folder. The tools are installed into .tools/bin at the root of the
# checkout, at the versions pinned here, once per version. With -check it fails when the committed code differs.
set -eu
cd "$(dirname "$0")"
tools="$(git rev-parse --show-toplevel)/.tools/bin"
mkdir -p "$tools"

install() { # module/path@version: a stamp file says which version the binary is of
	stamp="$tools/.$(basename "${1%@*}")-${1##*@}"
	[ -e "$stamp" ] && return
	GOBIN="$tools" GOFLAGS=-trimpath CGO_ENABLED=0 go install "$1"
	touch "$stamp"
}
install github.com/bufbuild/buf/cmd/buf@v1.75.0
install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
install github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto@v0.6.1-0.20240319094008-0393e58bdf10

PATH="$tools:$PATH"
export PATH
buf build
buf format -w
buf generate
gofmt -w ./*pb/*.pb.go

if [ "${1:-}" = -check ]; then
	git diff --exit-code -- '*.proto' '*.pb.go' || {
		echo "internal/pb: the generated code is not what the .proto files say; run go generate ./internal/pb" >&2
		exit 1
	}
fi
