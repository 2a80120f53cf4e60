package infront

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/beside"
	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// ConfigEnv names the variable in which criu finds the path of one more
// configuration file (criu/config.c, next_config).
const ConfigEnv = "CRIU_CONFIG_FILE"

// writeConfig writes the configuration of this process, which is about to become
// criu: what the user's own file says, and the action script. It returns the path.
func writeConfig(dir *state.Dir, user []byte, hook string) (string, error) {
	self, err := state.Self()
	if err != nil {
		return "", err
	}
	script, err := scriptLine(hook)
	if err != nil {
		return "", err
	}
	content := bytes.Clone(user)
	if len(content) > 0 && content[len(content)-1] != '\n' {
		content = append(content, '\n')
	}
	name := beside.Name(self)
	return dir.Join(name), dir.Replace(name, append(content, script...))
}

// scriptLine is the line of a configuration file that adds an action script.
// criu takes # for a comment even within quotes (criu/config.c, parse_statement).
func scriptLine(hook string) (string, error) {
	if !filepath.IsAbs(hook) || strings.ContainsAny(hook, "#\"\\\n\t") {
		return "", fmt.Errorf("action script %q: criu's configuration cannot hold that path", hook)
	}
	return fmt.Sprintf("action-script \"%s\"\n", hook), nil
}

// userConfig reads the file that the user's own CRIU_CONFIG_FILE names. criu
// passes over one that is missing. Nothing but a regular file is read: a pipe
// could be read only once.
func userConfig() ([]byte, error) {
	path := os.Getenv(ConfigEnv)
	if path == "" {
		return nil, nil
	}
	text, err := readConfig(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ConfigEnv, err)
	}
	return text, nil
}

func readConfig(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	const most = state.MaxFile / 2
	if !info.Mode().IsRegular() || info.Size() > most {
		return nil, fmt.Errorf("%s: no regular file of at most %d bytes", path, most)
	}
	return io.ReadAll(io.LimitReader(f, most))
}

// obstructed looks through the configuration files that criu reads for what a
// dump beside the namespace cannot be combined with. A request on a socket cannot
// stream (criu/cr-service.c), and names its own file where criu reads it last.
func (r *Request) obstructed(user []byte) error {
	r.obstructIn(user)
	paths := []string{r.config}
	if r.defaults {
		paths = []string{"/etc/criu/default.conf"}
		if home := os.Getenv("HOME"); home != "" {
			paths = append(paths, filepath.Join(home, ".criu", "default.conf"))
		}
	}
	for _, path := range paths {
		if path == "" {
			continue
		}
		text, err := readConfig(path)
		if err != nil {
			return err
		}
		r.obstructIn(text)
	}
	return nil
}

func (r *Request) obstructIn(text []byte) {
	for statement := range strings.Lines(string(text)) {
		option, value, _ := strings.Cut(strings.TrimSpace(statement), " ")
		r.obstruct(option, strings.Trim(strings.TrimSpace(value), "\""))
	}
}

// called reports whether a criu that runs has an action script in a Link's
// directory. It has read so when it began, and would fail at its next action if
// that were gone.
func called(dir string) bool {
	at, err := state.Existing()
	if err != nil {
		return false
	}
	defer at.Close()
	within := []byte("/" + filepath.Base(dir) + "/")
	return slices.ContainsFunc(beside.Present(), func(criu state.Process) bool {
		text, err := at.Read(beside.Name(criu))
		return err == nil && bytes.Contains(text, within)
	})
}

// Sweep removes the configuration files of criu processes that have ended: criu
// reads its own once, when it starts. It does nothing where there is no state
// directory; what cannot be removed is left to the next one.
func Sweep() {
	if dir, err := state.Existing(); err == nil {
		sweep(dir)
		_ = dir.Close()
	}
}

func sweep(dir *state.Dir) {
	names, err := dir.Names()
	if err != nil {
		return
	}
	for _, name := range names {
		if criu, ok := beside.Named(name); ok && !criu.Foreign() && !criu.Alive() {
			_ = dir.Remove(name)
		}
	}
}
