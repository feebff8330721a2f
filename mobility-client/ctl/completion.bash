# SPDX-License-Identifier: GPL-2.0-or-later
# bash completion for migrate-ctl(1); installed as
# /usr/share/bash-completion/completions/migrate-ctl. Connections complete to
# their cookies, read with `migrate-ctl list`.

_migrate_ctl_cookies() {
	"$1" list 2>/dev/null | awk '$1 ~ /^[0-9]+$/ { print $1 }'
}

_migrate_ctl_local_addresses() {
	ip -o address show scope global 2>/dev/null | awk '{ sub("/.*", "", $4); print $4 }'
}

# Prints the words that may follow $command.
_migrate_ctl_words() {
	local ctl=$1 command=$2
	case $command in
	list) echo --state --local --remote ;;
	show) echo --state --local --remote; _migrate_ctl_cookies "$ctl" ;;
	migrate)
		echo --from-local --from-remote --to-local --to-remote --dev --trial --no-syn --wait --wait=
		_migrate_ctl_cookies "$ctl"
		;;
	abort | export) _migrate_ctl_cookies "$ctl" ;;
	key) echo add promote exclusive remove ;;
	key-op) echo --remote --id --secret-file; _migrate_ctl_cookies "$ctl" ;;
	monitor) echo --snapshot --count ;;
	stats) echo -z --non-zero ;;
	enable) echo --opt-in --cgroup ;;
	disable) echo --cgroup ;;
	run) echo --user -- ;;
	log) echo -n --lines -f --follow ;;
	doctor | status | pairs | servers | report) ;;
	*) echo list show migrate abort key export monitor stats enable disable run doctor \
		status pairs servers report log \
		-j --json --control --help --version ;;
	esac
}

# Completes the value of option $1; fails if it takes none that we know.
_migrate_ctl_value() {
	local current=$2
	case $1 in
	--state) mapfile -t COMPREPLY < <(compgen -W "none idle mig-sent mig-confirm mig-wait" -- "$current") ;;
	--to-local | --from-local | --local)
		mapfile -t COMPREPLY < <(compgen -W "$(_migrate_ctl_local_addresses)" -- "$current") ;;
	--dev) mapfile -t COMPREPLY < <(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$current") ;;
	--cgroup) mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
	--secret-file | --control) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
	--user) mapfile -t COMPREPLY < <(compgen -u -- "$current") ;;
	--id) mapfile -t COMPREPLY < <(compgen -W "1 2 3" -- "$current") ;;
	--remote | --to-remote | --from-remote | --count | -n | --lines) COMPREPLY=() ;;
	*) return 1 ;;
	esac
}

_migrate_ctl() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
	local word command=
	COMPREPLY=()
	_migrate_ctl_value "$previous" "$current" && return
	for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		case $word in
		--) # what follows belongs to the program of `run`
			mapfile -t COMPREPLY < <(compgen -c -- "$current")
			return
			;;
		-*) ;;
		add | promote | exclusive | remove) [ "$command" = key ] && command=key-op ;;
		*) [ -z "$command" ] && command=$word ;;
		esac
	done
	mapfile -t COMPREPLY < <(compgen -W "$(_migrate_ctl_words "${COMP_WORDS[0]}" "$command")" -- "$current")
}

complete -F _migrate_ctl migrate-ctl
