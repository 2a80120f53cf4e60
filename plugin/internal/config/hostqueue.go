package config

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// HostQueue is a System V message queue of the host's IPC namespace, as ipcs(1)
// shows it: by its key and the uid of its owner. A queue at that key which
// belongs to somebody else is another one.
type HostQueue struct {
	Key int32
	UID uint32
}

// String writes it as the file does.
func (q HostQueue) String() string { return fmt.Sprintf("0x%x:%d", uint32(q.Key), q.UID) }

// HostQueues is what the hook may save and restore of the host's IPC namespace.
// Everybody on the host uses it, so without a word of the administrator's that is
// nothing.
type HostQueues []HostQueue

// Has reports whether a queue is among them, by the uid that the hook sees.
func (q HostQueues) Has(key int32, uid uint32) bool {
	return slices.Contains(q, HostQueue{key, uid})
}

type hostQueue struct{ value HostQueue }

func (q *hostQueue) UnmarshalText(text []byte) error {
	key, uid, _ := strings.Cut(string(text), ":")
	k, keyErr := number(key, math.MaxUint32)
	u, uidErr := number(uid, math.MaxUint32-1) // the last one is no user: chown(2)
	switch {
	case keyErr != nil || uidErr != nil:
		return fmt.Errorf("not %q", text)
	case k == 0:
		return errors.New("key 0 is that of every private queue (IPC_PRIVATE), and nothing tells these apart")
	}
	q.value = HostQueue{Key: int32(k), UID: uint32(u)}
	return nil
}

// number takes decimal, and hexadecimal with 0x as ipcs(1) has it. A leading 0
// is refused: it would mean octal to some.
func number(text string, most uint64) (n uint64, err error) {
	digits, hex := strings.CutPrefix(text, "0x")
	switch {
	case hex:
		n, err = strconv.ParseUint(digits, 16, 64)
	case text != "0" && strings.HasPrefix(text, "0"):
		return 0, strconv.ErrSyntax
	default:
		n, err = strconv.ParseUint(text, 10, 64)
	}
	if err == nil && n > most {
		return 0, strconv.ErrRange
	}
	return n, err
}
