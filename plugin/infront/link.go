package infront

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

const (
	// saidName is the file beside a Link's names into which Main writes its lines.
	saidName = "said"
	// maxSaid bounds what is read from it.
	maxSaid = 64 << 10
	// linkPrefix begins the name of a Link's directory; pid and start time of the
	// process that made it follow.
	linkPrefix = "ipc-cr-run-"
)

// Link is a private directory in which the names criu and ipc-cr-criu-hook are
// links to this binary. In front on PATH it is the place in front of criu for
// whatever is started with it.
type Link struct{ dir string }

// NewLink makes such a directory, below os.TempDir, for the caller alone. Those of
// processes that have ended are removed on the way. It needs no privilege.
func NewLink() (*Link, error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("place in front of criu: %w", err)
	}
	if _, _, err := identify(binary); err != nil {
		return nil, fmt.Errorf("place in front of criu: this binary was moved or removed: %w", err)
	}
	self, err := state.Self()
	if err != nil {
		return nil, fmt.Errorf("place in front of criu: %w", err)
	}
	sweepLinks(os.TempDir())
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-%d-%d-", linkPrefix, self.PIDNamespace, self.PID, self.Start))
	if err != nil {
		return nil, fmt.Errorf("place in front of criu: %w", err)
	}
	l := &Link{dir: dir}
	if err := l.fill(binary); err != nil {
		return nil, errors.Join(fmt.Errorf("place in front of criu: %w", err), l.Close())
	}
	return l, nil
}

func (l *Link) fill(binary string) error {
	for _, name := range []string{Name, HookName} {
		if err := os.Symlink(binary, filepath.Join(l.dir, name)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(l.dir, saidName), nil, 0o600)
}

// Path returns a value for PATH that begins with the link and goes on with path.
func (l *Link) Path(path string) string {
	if path == "" {
		return l.dir
	}
	return l.dir + string(filepath.ListSeparator) + path
}

// Name returns the path of the place in front of criu.
func (l *Link) Name() string { return filepath.Join(l.dir, Name) }

// Said returns the lines that Main has said through this link so far: why a dump
// went the ordinary way.
func (l *Link) Said() string {
	f, err := os.Open(filepath.Join(l.dir, saidName))
	if err != nil {
		return ""
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, maxSaid))
	return string(text)
}

// Close removes the directory, and the configuration files of criu processes that
// have ended. A directory whose action script a criu calls still, one that outlives
// the command that started it, is left to a later NewLink.
func (l *Link) Close() error {
	Sweep()
	if called(l.dir) {
		return nil
	}
	return os.RemoveAll(l.dir)
}

// openSaid opens the file of the Link that a link to this binary is in, nil if it
// is in none. It must be the caller's own: a name in a directory that others can
// write is not believed.
func openSaid(link string) *os.File {
	if link == "" {
		return nil
	}
	path := filepath.Join(filepath.Dir(link), saidName)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil || st.Mode != unix.S_IFREG|0o600 || int(st.Uid) != os.Geteuid() {
		_ = f.Close()
		return nil
	}
	return f
}

// sweepLinks removes the directories of the dead, but for those that a criu needs.
func sweepLinks(temp string) {
	left, _ := filepath.Glob(filepath.Join(temp, linkPrefix+"*"))
	for _, dir := range left {
		maker, ok := makerOf(filepath.Base(dir))
		var st unix.Stat_t
		if !ok || maker.Foreign() || maker.Alive() || unix.Lstat(dir, &st) != nil || int(st.Uid) != os.Geteuid() || called(dir) {
			continue
		}
		_ = os.RemoveAll(dir)
	}
}

// makerOf returns which process made the directory of that name.
func makerOf(name string) (maker state.Process, ok bool) {
	parts := strings.Split(strings.TrimPrefix(name, linkPrefix), "-")
	if len(parts) != 4 {
		return maker, false
	}
	space, spaceErr := strconv.ParseUint(parts[0], 10, 64)
	pid, pidErr := strconv.Atoi(parts[1])
	start, startErr := strconv.ParseUint(parts[2], 10, 64)
	maker = state.Process{PIDNamespace: space, PID: pid, Start: start}
	return maker, spaceErr == nil && pidErr == nil && startErr == nil
}
