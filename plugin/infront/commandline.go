package infront

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Request is what a criu process is asked to do, as far as it matters here.
type Request struct {
	Dump bool
	PID  int // root of the tree to dump, in the caller's pid namespace; 0 if not said

	// Obstacle is why this dump must go the ordinary way, "" if nothing in the
	// request itself is in the way.
	Obstacle string

	socket   int    // of swrk, -1 for a command line
	config   string // argument of --config
	defaults bool   // the default configuration files are read
}

// Options of criu(8) that take an argument of their own; the short ones as in
// getopt(3), a colon for an argument and two for one in the same word.
const shortOptions = "dSsRt:hD:o:v::x::Vr:jJ:lW:L:M:"

// Of the long options only those with an argument matter: what stands after one
// is no command. An option of a newer criu with an argument is taken for one
// without; its argument then looks like a second command, which is refused.
var longWithArgument = words(`tree images-dir work-dir log-file join-ns root close pidfile veth-pair
	action-script address port prev-images-dir libdir ext-mount-map cgroup-root inherit-fd feature
	skip-mnt enable-fs freeze-cgroup ghost-limit irmap-scan-path lsm-profile timeout external empty-ns
	cgroup-props cgroup-props-file cgroup-dump-controller status-fd ps-socket config tls-cacert
	tls-cacrl tls-cert tls-key cgroup-yard pre-dump-mode file-validation lsm-mount-context network-lock`)

// otherCommands are those that are no dump, whatever follows them.
var otherCommands = words("restore pre-dump check page-server service dedup lazy-pages cpuinfo exec show")

func words(text string) map[string]bool {
	set := map[string]bool{}
	for _, word := range strings.Fields(text) {
		set[word] = true
	}
	return set
}

// line is a command line taken apart.
type line struct {
	*Request
	commands []string
	pid      string
}

// ParseCommandLine reads the arguments of criu, without its name, as criu/config.c
// does. It knows `dump` and `swrk`; for every other command, and for a line that
// criu would not understand either, Dump is false. An error is about a line that
// may be a dump and cannot be understood.
func ParseCommandLine(args []string) (*Request, error) {
	l := &line{Request: &Request{socket: -1, defaults: true}}
	if err := l.read(args); err != nil {
		return nil, err
	}
	switch {
	case len(l.commands) == 1 && l.commands[0] == "dump":
		return l.dump()
	case len(l.commands) == 2 && l.commands[0] == "swrk":
		return l.swrk()
	case len(l.commands) > 1 && !otherCommands[l.commands[0]] && slices.Contains(l.commands, "dump"):
		return nil, fmt.Errorf("command line of criu: %q: more than one command, or an option unknown here", l.commands)
	}
	return l.Request, nil
}

func (l *line) dump() (*Request, error) {
	l.Dump = true
	pid, err := strconv.ParseInt(l.pid, 10, 32)
	if err != nil || pid <= 0 {
		return nil, fmt.Errorf("command line of criu: dump of process %q", l.pid)
	}
	l.PID = int(pid)
	return l.Request, nil
}

func (l *line) swrk() (*Request, error) {
	fd, err := strconv.ParseInt(l.commands[1], 10, 32)
	if err != nil || fd < 0 {
		return nil, fmt.Errorf("command line of criu: swrk of descriptor %q", l.commands[1])
	}
	l.socket = int(fd)
	return l.Request, nil
}

// read goes through the words as getopt_long(3) does, commands and options in
// any order.
func (l *line) read(args []string) error {
	for len(args) > 0 {
		word := args[0]
		args = args[1:]
		var taken int
		var err error
		switch {
		case word == "--":
			l.commands = append(l.commands, args...)
			return nil
		case strings.HasPrefix(word, "--"):
			taken, err = l.long(word[2:], args)
		case len(word) > 1 && word[0] == '-':
			taken, err = l.short(word[1:], args)
		default:
			l.commands = append(l.commands, word)
		}
		if err != nil {
			return err
		}
		args = args[taken:]
	}
	return nil
}

// long reads a long option and tells how many of the words after it are its own.
func (l *line) long(option string, rest []string) (taken int, err error) {
	name, value, joined := strings.Cut(option, "=")
	if !joined && longWithArgument[name] {
		if len(rest) == 0 {
			return 0, fmt.Errorf("command line of criu: --%s without its argument", name)
		}
		value, taken = rest[0], 1
	}
	switch name {
	case "tree":
		l.pid = value
	case "config":
		l.config, l.defaults = value, false
	case "no-default-config":
		l.defaults = false
	default:
		l.obstruct(name, value)
	}
	return taken, nil
}

// short reads a cluster of short options.
func (l *line) short(cluster string, rest []string) (taken int, err error) {
	for i := range len(cluster) {
		at := strings.IndexByte(shortOptions, cluster[i])
		if at < 0 || cluster[i] == ':' {
			return 0, fmt.Errorf("command line of criu: -%c is unknown here", cluster[i])
		}
		after := shortOptions[at+1:]
		if !strings.HasPrefix(after, ":") {
			continue
		}
		value := cluster[i+1:]
		if value == "" && !strings.HasPrefix(after, "::") {
			if len(rest) == 0 {
				return 0, fmt.Errorf("command line of criu: -%c without its argument", cluster[i])
			}
			value, taken = rest[0], 1
		}
		if cluster[i] == 't' {
			l.pid = value
		}
		return taken, nil
	}
	return 0, nil
}

// obstruct notes what a dump beside the namespace cannot be combined with.
func (r *Request) obstruct(option, value string) {
	switch {
	case option == "stream":
		r.Obstacle = "criu streams its images (--stream): there is no directory to complete"
	case option == "external" && strings.HasPrefix(value, "ipc["):
		r.Obstacle = fmt.Sprintf("the IPC namespace is external to the dump (--external %q)", value)
	}
}
