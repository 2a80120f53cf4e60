package nsenter

import (
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Owner is the user namespace that owns an IPC namespace, as seen from the
// caller. Owners and creators of IPC objects are ids of that user namespace;
// msgctl(2) shows them to the caller as ids of the caller's own. An Owner may be
// another caller's too, and must not be changed.
type Owner struct {
	Own  bool // it is the caller's own user namespace
	UIDs IDMap
	GIDs IDMap
}

// Owner looks up the user namespace that owns n (NS_GET_USERNS, ioctl_ns(2))
// and its id maps. If it is the caller's own, the maps are the identity,
// restricted to the ids that have a mapping there: an overflow id has none.
// Otherwise they are read from a task in that very user namespace, seen through
// /proc, which needs CAP_SYS_PTRACE over it; without such a task it fails. It
// fails with EPERM if the owner is above the caller's user namespace.
func (n *Namespace) Owner() (*Owner, error) {
	o, err := n.owner()
	if err != nil {
		return nil, fmt.Errorf("owner of %s: %w", n, err)
	}
	return o, nil
}

func (n *Namespace) owner() (*Owner, error) {
	fd, err := unix.IoctlRetInt(n.Fd(), unix.NS_GET_USERNS)
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("it is not the caller's user namespace nor one below: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("ioctl NS_GET_USERNS: %w", err)
	}
	defer unix.Close(fd)
	wanted, err := keyOf(fd)
	if err != nil {
		return nil, fmt.Errorf("fstat user namespace: %w", err)
	}
	own, err := ownUser()
	if err != nil {
		return nil, fmt.Errorf("stat own user namespace: %w", err)
	}
	if own == wanted {
		return ownMaps()
	}
	return n.searchMaps(wanted)
}

// self is the process. Its threads all are in one user namespace, and stay there:
// the kernel lets only a process of one thread change it (unshare(2), setns(2)).
// The links of a thread of its own take longer.
const self = "/proc/self"

// What ownUser and ownMaps have found, which stays so.
var (
	ownKey   atomic.Pointer[nsKey]
	ownKnown atomic.Pointer[Owner]
)

// ownUser is the user namespace of this process.
func ownUser() (nsKey, error) {
	if known := ownKey.Load(); known != nil {
		return *known, nil
	}
	key, err := keyAt(unix.AT_FDCWD, self+"/ns/user")
	if err == nil {
		ownKey.Store(&key)
	}
	return key, err
}

// ownMaps reads the maps until there are some: a map can be written once
// (user_namespaces(7)), by the parent too, and after the process's start.
func ownMaps() (*Owner, error) {
	if known := ownKnown.Load(); known != nil {
		return known, nil
	}
	uids, gids, err := readMaps(unix.AT_FDCWD, self)
	if err != nil {
		return nil, fmt.Errorf("own id maps: %w", err)
	}
	o := &Owner{Own: true, UIDs: uids.restrictedIdentity(), GIDs: gids.restrictedIdentity()}
	if len(uids) > 0 && len(gids) > 0 {
		ownKnown.Store(o)
	}
	return o, nil
}

// errElsewhere says that a task is not in the user namespace it was asked for.
var errElsewhere = errors.New("is in another user namespace")

// searchMaps tries the likely tasks first: the one the namespace was opened
// through, then those in it, then all.
func (n *Namespace) searchMaps(wanted nsKey) (*Owner, error) {
	if n.pid > 0 {
		if o, err := mapsOf(unix.AT_FDCWD, "/proc/"+strconv.Itoa(n.pid), wanted); err == nil {
			return o, nil
		}
	}
	var found *Owner
	refused := 0
	visit := func(proc int, pid string) bool {
		o, err := mapsOf(proc, pid, wanted)
		if err != nil && !isGone(err) && !errors.Is(err, errElsewhere) {
			refused++
		}
		found = o
		return o == nil
	}
	inside := func(proc int, pid string) bool {
		in, _ := linkIs(proc, pid, n.Link())
		return !in || visit(proc, pid)
	}
	for _, look := range []func(int, string) bool{inside, visit} {
		refused = 0
		if err := eachProcess(look); err != nil || found != nil {
			return found, err
		}
	}
	return nil, fmt.Errorf("no task found in user:[%d] to read its id maps from (%d tasks could not be looked at)", wanted.ino, refused)
}

// mapsOf reads the maps of a task that is in the user namespace wanted, before
// and after: the maps are of the namespace it is in when they are opened.
// The descriptor of its directory stays the task's when its pid is reused.
func mapsOf(proc int, pid string, wanted nsKey) (*Owner, error) {
	dir, err := openFD(proc, pid, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	if err := checkUser(dir, wanted); err != nil {
		return nil, err
	}
	uids, gids, err := readMaps(dir, ".")
	if err != nil {
		return nil, err
	}
	if err := checkUser(dir, wanted); err != nil {
		return nil, err
	}
	return &Owner{UIDs: uids, GIDs: gids}, nil
}

func checkUser(dir int, wanted nsKey) error {
	key, err := keyAt(dir, "ns/user")
	if err != nil {
		return linkError(dir, "ns", err)
	}
	if key != wanted {
		return errElsewhere
	}
	return nil
}

// readMaps reads the maps of one task. The kernel shows the outside ids as the
// opener's user namespace knows them (uid_m_show), which is the caller's.
func readMaps(dirfd int, task string) (uids, gids IDMap, err error) {
	if uids, err = readMap(dirfd, task+"/uid_map"); err != nil {
		return nil, nil, err
	}
	gids, err = readMap(dirfd, task+"/gid_map")
	return uids, gids, err
}

func readMap(dirfd int, path string) (IDMap, error) {
	text, err := readAt(dirfd, path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	m, err := parseIDMap(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}
