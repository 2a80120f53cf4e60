package main

import (
	"regexp"
	"strings"
	"testing"
)

// Wrong usage is exit status 2, and one line that says what to do.
func TestUsage(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"frobnicate", `unknown command "frobnicate"`},
		{"frobnicate --help", `unknown command "frobnicate"`},
		{"-- frobnicate", `unknown command "frobnicate"`},
		{"-- checkpoint", `unknown command "checkpoint"`},
		{"--frobnicate", "unknown flag: --frobnicate"},
		{"version x", `unknown command "x"`},
		{"check x", `unknown command "x"`},
		{"check --pid 1", "unknown flag: --pid"},

		{"checkpoint", "give one of --pid and --ns"},
		{"checkpoint -D d", "give one of --pid and --ns"},
		{"checkpoint --pid 1", "give --images-dir"},
		{"checkpoint --pid 1 -D", "flag needs an argument"},
		{"checkpoint --pid 1 --images-dir=", "give --images-dir"},
		{"checkpoint --pid 1 --ns /x -D d", "give one of --pid and --ns"},
		{"checkpoint --pid x -D d", `invalid argument "x"`},
		{"checkpoint --pid 0 -D d", "--pid 0: a process id is above 0"},
		{"checkpoint --pid -5 -D d", "--pid -5: a process id is above 0"},
		{"checkpoint --pid 1 -D d --ns-id -1", `invalid argument "-1"`},
		{"checkpoint --pid 1 -D d --ns-id 4294967296", `invalid argument "4294967296"`},
		{"checkpoint --pid 1 -D d --freeze=perhaps", `invalid argument "perhaps"`},
		{"checkpoint --pid 1 -D d --method fast", `--method "fast": want auto, copy or bpf`},
		{"checkpoint --pid 1 -D d extra", `unknown command "extra"`},
		{"checkpoint --pid 1 -D d --new", "unknown flag: --new"},

		{"restore", "give one of --pid, --ns and --new"},
		{"restore --new", "give --images-dir"},
		{"restore --pid 1 --new -D d", "give one of --pid, --ns and --new"},
		{"restore --pid 1 --ns /x -D d", "give one of --pid, --ns and --new"},
		{"restore --new -D d", "give --pin PATH or -- COMMAND"},
		{"restore --pid 1 -D d --pin /x", "--pin keeps a fresh namespace: give --new"},
		{"restore --pid 1 -D d -- true", "a command runs in a fresh namespace only: give --new"},
		{"restore --new --host -D d -- true", "--host: a fresh namespace is not the host's"},
		{"restore --new -D d true", `unexpected argument "true": a command stands after --`},
		{"restore --new -D d true -- true", `unexpected argument "true": a command stands after --`},
		{"restore --pid 1 -D d --on-conflict maybe", `--on-conflict "maybe": choose fail, adopt or replace`},
		{"restore --pid 0 -D d", "--pid 0: a process id is above 0"},

		{"show", "0 arguments: give one, DIR, FILE or ARCHIVE"},
		{"show a b", "2 arguments: give one, DIR, FILE or ARCHIVE"},
	} {
		t.Run(c.args, func(t *testing.T) {
			runCommand(t, strings.Fields(c.args)...).wantError(t, 2, c.says, "(see --help)")
		})
	}
}

// Every command tells how it is used, with examples that it understands.
func TestHelp(t *testing.T) {
	for _, command := range newRoot(nil, nil).Commands() {
		name := command.Name()
		out := mustRun(t, name, "--help")
		if !strings.Contains(out, "\nUsage:\n  ipc-cr "+name) {
			t.Errorf("%s --help has no usage:\n%s", name, out)
		}
		if name == "version" {
			continue
		}
		_, examples, found := strings.Cut(out, "\nExamples:\n")
		if !found || !strings.Contains(examples, "ipc-cr "+name) {
			t.Errorf("%s --help has no examples:\n%s", name, out)
		}
	}
	if help, bare := mustRun(t, "--help"), mustRun(t); help != bare || !strings.Contains(help, "Examples:") {
		t.Errorf("without arguments: %q, with --help: %q", bare, help)
	}
}

// Flags are known to the help under both of their names.
func TestFlagsInHelp(t *testing.T) {
	for command, flags := range map[string]string{
		"checkpoint": "-t, --pid PID|--ns PATH|-D, --images-dir DIR|--ns-id N|--freeze|--method|--force|--json",
		"restore":    "-t, --pid PID|--ns PATH|--new|--host|--pin PATH|-D, --images-dir DIR|--ns-id N|--on-conflict fail|--dry-run|--json",
		"show":       "--messages|--json",
		"check":      "--json",
		"log":        "-n, --last N|--json",
	} {
		help := mustRun(t, command, "--help")
		for flag := range strings.SplitSeq(flags, "|") {
			if !strings.Contains(help, flag) {
				t.Errorf("%s --help does not know %s", command, flag)
			}
		}
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out := mustRun(t, "completion", shell); !strings.Contains(out, "ipc-cr") || len(out) < 1000 {
			t.Errorf("%s: %q", shell, out)
		}
	}
	for _, c := range []struct{ args, want string }{
		{"restore|--on-conflict|", "fail\nadopt\nreplace\n:4\n"},
		{"checkpoint|--images-dir|", ":16\n"}, // directories
	} {
		r := runCommand(t, append([]string{"__complete"}, strings.Split(c.args, "|")...)...)
		if r.status != 0 || r.out != c.want {
			t.Errorf("%s: %q, want %q", c.args, r.out, c.want)
		}
	}
}

func TestVersion(t *testing.T) {
	form := regexp.MustCompile(`^ipc-cr \S+ go\S+ linux/\w+\n$`)
	if out := mustRun(t, "version"); !form.MatchString(out) {
		t.Errorf("%q", out)
	}
	old := version
	t.Cleanup(func() { version = old })
	version = "v1.2.3"
	if out := mustRun(t, "version"); !strings.HasPrefix(out, "ipc-cr v1.2.3 go") {
		t.Errorf("%q", out)
	}
}
