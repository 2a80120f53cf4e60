package warden

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// images is a directory whose turn the warden has, and what is set aside there.
type images struct {
	folder
	turn  *turn
	names []string
}

// folder is an open directory and how to find it again.
type folder struct {
	fd         int // O_PATH
	path       string
	dev, inode uint64
}

// newFolder takes over a descriptor.
func newFolder(fd int) (folder, error) {
	f := folder{fd: fd}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return f, fmt.Errorf("stat the directory: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return f, fmt.Errorf("what was passed is no directory: %w", unix.ENOTDIR)
	}
	f.dev, f.inode = uint64(st.Dev), st.Ino
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	f.path = path
	return f, err
}

// errMoved says that a directory is not where it was noted.
var errMoved = errors.New("it is not there any more")

// openFolder finds a directory again. Links on the way are followed: device and
// inode prove that it is the one.
func openFolder(n *imagesNote) (folder, error) {
	fd, err := unix.Open(n.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return folder{fd: -1}, fmt.Errorf("directory %q: %w: %w", n.Path, errMoved, err)
	}
	if err != nil {
		return folder{fd: -1}, fmt.Errorf("open directory %q: %w", n.Path, err)
	}
	f, err := newFolder(fd)
	if err == nil && (f.dev != n.Dev || f.inode != n.Inode) {
		err = fmt.Errorf("directory %q: %w: another one has its name", n.Path, errMoved)
	}
	if err != nil {
		_ = unix.Close(fd)
		return folder{fd: -1}, err
	}
	return f, nil
}

// sort says where each file is. Nothing has been changed then.
func (f *folder) sort(names []string) (home, aside []string, err error) {
	for _, name := range names {
		at, err := find(f.fd, name)
		if err != nil {
			return nil, nil, err
		}
		switch at {
		case atHome:
			home = append(home, name)
		case away:
			aside = append(aside, name)
		}
	}
	return home, aside, nil
}

// putBack returns what it gave back and what could not be.
func (f *folder) putBack(names []string) (done, left []string, err error) {
	var errs []error
	for _, name := range names {
		ok, err := putBack(f.fd, name)
		if err != nil {
			left = append(left, name)
			errs = append(errs, err)
		} else if ok {
			done = append(done, name)
		}
	}
	return done, left, errors.Join(errs...)
}

// close ends the turn.
func (i *images) close() error {
	return errors.Join(i.turn.release(), unix.Close(i.fd))
}

// setAside sets images aside in the directory that was passed.
func (p *post) setAside(ctx context.Context, r request, passed *os.File) error {
	if passed == nil {
		return errors.New("without a directory")
	}
	if err := checkNames(r.Names); err != nil {
		return err
	}
	fd, err := unix.FcntlInt(passed.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("duplicate the directory's descriptor: %w", err)
	}
	f, err := newFolder(fd)
	if err == nil {
		err = p.takeFolder(ctx, f, r.Wait)
	}
	if err != nil || p.images.fd != fd {
		_ = unix.Close(fd)
	}
	if err != nil {
		return err
	}
	err = p.move(r.Names)
	if err != nil && len(p.images.names) == 0 {
		err = errors.Join(err, p.forget())
	}
	return err
}

// takeFolder waits for the directory's turn, if the warden has not got it.
func (p *post) takeFolder(ctx context.Context, f folder, wait time.Duration) error {
	if p.images != nil {
		if p.images.dev == f.dev && p.images.inode == f.inode {
			return nil
		}
		return fmt.Errorf("images in %q are set aside for this CRIU already", p.images.path)
	}
	turn, err := p.turnOf(ctx, f, wait)
	if err == nil {
		p.images = &images{folder: f, turn: turn}
	}
	return err
}

func (p *post) turnOf(ctx context.Context, f folder, wait time.Duration) (*turn, error) {
	return folderTurn(ctx, p.dir, f, p.note.CRIU, p.note.Warden, wait)
}

func folderTurn(ctx context.Context, dir *state.Dir, f folder, criu, warden state.Process, wait time.Duration) (*turn, error) {
	mine, err := newClaim(criu, warden)
	if err != nil {
		return nil, err
	}
	return takeTurn(ctx, dir, directoryTurn(f.dev, f.inode), strconv.Quote(f.path), mine, wait)
}

// move notes what is going to be aside before it is.
func (p *post) move(names []string) error {
	i := p.images
	home, aside, err := i.sort(names)
	if err != nil {
		return err
	}
	before := i.names
	kept := merge(before, aside)
	if err := p.noteImages(merge(kept, home)); err != nil {
		return err
	}
	for _, name := range home {
		if err := setAside(i.fd, name); err != nil {
			return p.moveBack(before, merge(home, aside), err)
		}
	}
	return nil
}

// moveBack undoes a move that failed, but for what was aside before. If it
// cannot, the reason is none that leaves the directory to CRIU (ErrReadOnly):
// CRIU would miss files.
func (p *post) moveBack(before, names []string, reason error) error {
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(before, name) })
	_, left, err := p.images.putBack(names)
	if err != nil {
		reason = fmt.Errorf("%s; then %w", reason.Error(), err) // not to be asked for ErrReadOnly
	}
	return errors.Join(reason, p.noteImages(merge(before, left)))
}

// noteImages makes these the files that are set aside, in the note first.
func (p *post) noteImages(names []string) error {
	i := p.images
	p.note.Images = nil
	if len(names) > 0 {
		p.note.Images = &imagesNote{Path: i.path, Dev: i.dev, Inode: i.inode, Names: names}
	}
	if err := p.writeNote(); err != nil {
		return err
	}
	i.names = names
	return nil
}

func merge(a, b []string) []string {
	all := slices.Clone(a)
	for _, name := range b {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// putBack gives everything its name back, and up the turn if nothing is left.
func (p *post) putBack() error {
	if p.images == nil {
		return nil
	}
	_, left, err := p.images.putBack(p.images.names)
	if noteErr := p.noteImages(left); noteErr != nil {
		return errors.Join(err, noteErr)
	}
	if len(left) > 0 {
		return fmt.Errorf("in %q: %w", p.images.path, err)
	}
	return p.forget()
}

func (p *post) forget() error {
	err := p.images.close()
	p.images = nil
	return err
}

// adopt takes over what a killed warden of the same CRIU has set aside.
func (p *post) adopt(n *imagesNote) (*images, error) {
	f, err := openFolder(n)
	if err != nil {
		return nil, fmt.Errorf("%w: images %q were set aside there, with the suffix %s", err, n.Names, Suffix)
	}
	_, aside, err := f.sort(n.Names)
	if err == nil && len(aside) == 0 {
		return nil, unix.Close(f.fd)
	}
	var turn *turn
	if err == nil {
		turn, err = p.turnOf(p.ctx, f, 0)
	}
	if err != nil {
		_ = unix.Close(f.fd)
		return nil, fmt.Errorf("in %q: %w", f.path, err)
	}
	return &images{folder: f, turn: turn, names: aside}, nil
}
