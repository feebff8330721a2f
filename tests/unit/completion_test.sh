#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Tests the bash completion with a stand-in for migrate-ctl.
# Usage: completion_test.sh COMPLETION_FILE
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
printf '#!/bin/sh\nprintf "COOKIE STATE\\n17 idle\\n18 idle\\n"\n' >"$dir/migrate-ctl"
chmod +x "$dir/migrate-ctl"
. "$1"
failed=0

# expect WORDS... : COMPLETIONS...  (the last word is the one under the cursor)
expect() {
	COMP_WORDS=("$dir/migrate-ctl")
	while [ "$1" != : ]; do COMP_WORDS+=("$1"); shift; done
	shift
	COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
	COMPREPLY=()
	_migrate_ctl || true
	if [ "${COMPREPLY[*]}" != "$*" ]; then
		echo "'${COMP_WORDS[*]:1}' completes to '${COMPREPLY[*]}', not '$*'" >&2
		failed=1
	fi
}

expect mig : migrate
expect mo : monitor
expect migrate --tr : --trial
expect migrate 1 : 17 18
expect -j show 18 : 18
expect list --state mig-w : mig-wait
expect key pro : promote
expect key add --sec : --secret-file
expect migrate --dev lo : lo
expect stats x :
expect stat : stats status
expect log --l : --lines
exit $failed
