#!/usr/bin/env bash
# Generates clients/python/agentstorage/v1 and clients/typescript/src/gen from protos/. With --check it writes nothing and
# fails when the committed code is not what the .proto files give.
set -euo pipefail
cd "$(dirname "$0")/.."

target=clients/python/agentstorage/v1
typescript=clients/typescript/src/gen
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

scripts/setup.sh .venv-codegen requirements/codegen.txt
# The plugins of mypy-protobuf are found on the PATH.
PATH="$PWD/.venv-codegen/bin:$PATH" .venv-codegen/bin/python -m grpc_tools.protoc --proto_path=protos \
  --python_out="$work" --pyi_out="$work" --grpc_python_out="$work" --mypy_grpc_out=quiet:"$work" \
  protos/agentstorage/v1/*.proto

fresh=$work/agentstorage/v1
for proto in protos/agentstorage/v1/*.proto; do
  # A file without services gets an empty pair of stubs, which nothing needs.
  if ! grep -q '^service ' "$proto"; then
    name=$(basename "$proto" .proto)
    rm -f "$fresh/${name}_pb2_grpc.py" "$fresh/${name}_pb2_grpc.pyi"
  fi
done
echo '"""Messages and stubs generated from protos/agentstorage/v1; change those and run `make generate`."""' >"$fresh/__init__.py"

# The details of errors come from the package that the Python client has them from.
googleapis=$(.venv/bin/python -c 'import google.rpc; print(list(google.rpc.__path__)[0])')/../..
mkdir "$work/gen"
PATH="$PWD/clients/typescript/node_modules/.bin:$PATH" .venv-codegen/bin/python -m grpc_tools.protoc \
  --proto_path=protos --proto_path="$googleapis" \
  --es_out="$work/gen" --es_opt=target=ts,import_extension=js \
  protos/agentstorage/v1/*.proto "$googleapis/google/rpc/error_details.proto"

if [ "${1:-}" = --check ]; then
  if ! diff -r -q -x __pycache__ "$target" "$fresh" || ! diff -r -q "$typescript" "$work/gen"; then
    echo "check-generated: the committed code is not what protos/ gives: run 'make generate' and commit the result" >&2
    exit 1
  fi
  exit 0
fi
mkdir -p "$target"
find "$target" -maxdepth 1 -type f \( -name '*.py' -o -name '*.pyi' \) -delete
cp "$fresh"/* "$target"/
rm -rf "$typescript"
cp -r "$work/gen" "$typescript"
