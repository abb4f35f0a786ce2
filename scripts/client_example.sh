#!/usr/bin/env bash
# client_example.sh ARGS...: makes the Python modules of the service and runs client_example.py with ARGS.
# It wants grpcio, grpcio-tools and googleapis-common-protos, as scripts/requirements.txt lists them; `make reference`
# leaves an environment with them in .cache/venv. PYTHON picks another.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.cache/venv/bin/python}
[ -x "$python" ] || python=$(command -v "$python" || command -v python3)
stubs=$root/.cache/python
if [ ! -e "$stubs/ok" ] || [ -n "$(find "$root/proto/secateur" -name '*.proto' -newer "$stubs/ok")" ]; then
	mkdir -p "$stubs/include/google/longrunning"
	google=$("$python" -c 'import google.longrunning as m; print(list(m.__path__)[0])')/..
	# The package ships this file under another name than the one that everybody imports it by.
	cp "$google/longrunning/operations_proto.proto" "$stubs/include/google/longrunning/operations.proto"
	"$python" -m grpc_tools.protoc -I "$root/proto" -I "$stubs/include" -I "$google/.." --python_out="$stubs" --grpc_python_out="$stubs" \
		"$root"/proto/secateur/v1/*.proto
	touch "$stubs/ok"
fi
PYTHONPATH=$stubs exec "$python" "$root/scripts/client_example.py" "$@"
