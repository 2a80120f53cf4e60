# shellcheck shell=bash
# Sourced: installs Debian packages, and programs of later releases beside this one's.

# why_not_debian_root: succeeds as root on Debian, else prints the reason.
why_not_debian_root() {
	((EUID == 0)) || { echo "not root" && return 1; }
	[[ -r /etc/os-release ]] || { echo "no /etc/os-release" && return 1; }
	local id
	id=$(. /etc/os-release && echo "${ID:-}")
	[[ $id == debian ]] || { echo "not Debian but ${id:-unknown}" && return 1; }
	command -v apt-get >/dev/null || { echo "no apt-get" && return 1; }
}

# apt_install PACKAGE...: installs from this release; refreshes the lists when they are absent or stale.
apt_install() {
	local options=(-y -q --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300)
	export DEBIAN_FRONTEND=noninteractive
	echo "install-tools: apt-get install $*" >&2
	apt-get install "${options[@]}" "$@" >/dev/null 2>&1 </dev/null && return
	apt-get update -q >&2 </dev/null
	apt-get install "${options[@]}" "$@" >&2 </dev/null
}

# candidate_major PACKAGE: prints the first number of the version that this release would install, or 0.
candidate_major() {
	local version
	version=$(apt-cache policy "$1" | sed -n 's/^  Candidate: \([0-9]*\).*/\1/p')
	echo "${version:-0}"
}

# debian_source: prints the mirror and the keyring (or -) of this system's own Debian source.
debian_source() {
	local codename
	codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
	main_target "$codename" || { apt-get update -q >&2 </dev/null && main_target "$codename"; } ||
		{ echo "install-tools: apt has no source for Debian $codename" >&2 && return 1; }
}

# main_target CODENAME: the release itself, not its updates, security or third parties.
main_target() {
	# shellcheck disable=SC2016 # apt expands these, not the shell
	local label codename site entry format='$(LABEL)|$(CODENAME)|$(SITE)|$(SOURCESENTRY)'
	while IFS='|' read -r label codename site entry; do
		[[ $label == Debian && $codename == "$1" ]] || continue
		echo "$site $(keyring_of "${entry%:*}")"
		return
	done < <(apt-get indextargets --format "$format" 'Created-By: Packages')
	return 1
}

# keyring_of SOURCES: the keyring named in an apt source file, or - where apt's trusted keys apply.
keyring_of() {
	local keyring
	keyring=$(sed -En 's/.*[Ss]igned-[Bb]y[:=] *([^] ]+).*/\1/p' "$1" | head -n 1)
	[[ $keyring == /* ]] || keyring=-
	echo "$keyring"
}

# unpack_from SUITE DIR PACKAGE...: unpacks packages of another release into DIR, with an apt state
# of its own: the system's apt must never come to think of that release as a source.
unpack_from() {
	local suite=$1 dir=$2 state
	shift 2
	echo "install-tools: $* from $suite into $dir" >&2
	state=$(mktemp -d)
	# A subshell, so that the trap is this unpacking's alone.
	(
		trap 'rm -rf "$state"' EXIT
		private_apt_state "$state" "$suite"
		cd "$state/debs" || exit
		apt-get -c "$state/apt.conf" -q update >&2 </dev/null
		apt-get -c "$state/apt.conf" -q download "$@" >&2 </dev/null
		rm -rf "$dir" && mkdir -p "$dir"
		for deb in *.deb; do dpkg-deb -x "$deb" "$dir"; done
	)
}

private_apt_state() {
	local state=$1 suite=$2 site keyring signed=
	read -r site keyring < <(debian_source) || return 1
	[[ $keyring == - ]] || signed="[signed-by=$keyring] "
	mkdir -p "$state"/{debs,lists/partial,cache/archives/partial}
	: >"$state/status"
	echo "deb $signed$site $suite main" >"$state/sources.list"
	cat >"$state/apt.conf" <<END
Dir::State "$state";
Dir::State::lists "$state/lists";
Dir::State::status "$state/status";
Dir::Cache "$state/cache";
Dir::Etc::SourceList "$state/sources.list";
Dir::Etc::SourceParts "-";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
APT::Sandbox::User "root";
END
}

# wrap_with_libc DIR PROGRAM LINK SETTING: runs PROGRAM with the libc unpacked beside it, and this
# system's libraries for the rest; SETTING is a variable for it, or nothing.
wrap_with_libc() {
	local dir=$1 program=$2 link=$3 setting=$4 loaders
	loaders=("$dir"/usr/lib/*-linux-*/ld*.so.[0-9])
	[[ -x ${loaders[0]} ]] || { echo "install-tools: no ld.so under $dir" >&2 && return 1; }
	local own=${loaders[0]%/*}
	write_wrapper "$dir" "$link" \
		"${setting:+$setting }exec '${loaders[0]}' --library-path '$own:${own#"$dir"}' '$dir/$program' \"\$@\""
}

# wrap_with_python DIR PROGRAM LINK: Debian's python, because that is the one Debian's protobuf is for.
wrap_with_python() {
	write_wrapper "$1" "$3" \
		"PYTHONPATH='$1/usr/lib/python3/dist-packages' exec /usr/bin/python3 '$1/$2' \"\$@\""
}

# wrap_for_machine PROGRAM LINK: runs this system's own PROGRAM, without breakpoints.
wrap_for_machine() {
	printf '#!/bin/sh\n%s exec %s "$@"\n' "$(without_breakpoints)" "$1" >"$2"
	chmod 755 "$2"
}

write_wrapper() {
	local dir=$1 link=$2 command=$3
	local wrapper=$dir/run/${link##*/}
	mkdir -p "$dir/run" "${link%/*}"
	printf '#!/bin/sh\n%s\n' "$command" >"$wrapper"
	chmod 755 "$wrapper"
	ln -sfn "$wrapper" "$link"
}
