package images

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/checkpoint-restore/go-criu/v7/magic"
)

// headerLen is the length of the two magic numbers at the head of an image.
const headerLen = 8

// magics maps our names of the kinds to the names in CRIU's magic table.
var magics = map[string]string{MsgKind: "IPCNS_MSG", VarKind: "IPC_VAR", SemKind: "IPCNS_SEM", ShmKind: "IPCNS_SHM"}

var magicTable = sync.OnceValue(magic.LoadMagic)

// header returns the two magic numbers of a kind.
func header(kind string) [headerLen]byte {
	table := magicTable()
	var b [headerLen]byte
	binary.LittleEndian.PutUint32(b[:4], uint32(table.ByName["IMG_COMMON"]))
	binary.LittleEndian.PutUint32(b[4:], uint32(table.ByName[magics[kind]]))
	return b
}

// WriteHeader writes the magic numbers that open an image of a kind.
func WriteHeader(w io.Writer, kind string) error {
	b := header(kind)
	_, err := w.Write(b[:])
	return err
}

// checkHeader compares the head of a file with what kind asks for.
func checkHeader(file string, got []byte, kind string) error {
	want := header(kind)
	if len(got) < headerLen {
		return fault(file, int64(len(got)), "truncated: %d bytes where the magic numbers of a CRIU image stand", len(got))
	}
	if [headerLen]byte(got) == want {
		return nil
	}
	return fault(file, 0, "not a CRIU %s image: magic %s instead of %s", kind, describeMagic(got), describeMagic(want[:]))
}

func describeMagic(b []byte) string {
	common, kind := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	name, known := magicTable().ByValue[uint64(kind)]
	if !known {
		return fmt.Sprintf("%#x %#x", common, kind)
	}
	return fmt.Sprintf("%#x %#x (%s)", common, kind, name)
}

// KindOf tells which kind of image a stream is, without consuming anything; ""
// for none that this package knows.
func KindOf(r interface{ Peek(int) ([]byte, error) }) string {
	head, err := r.Peek(headerLen)
	if err != nil {
		return ""
	}
	for kind := range magics {
		if header(kind) == [headerLen]byte(head) {
			return kind
		}
	}
	return ""
}
